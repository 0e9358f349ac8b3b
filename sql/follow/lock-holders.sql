-- What: who holds a lock on a table, one of its partitions or a view of it that keeps it from being changed.
-- Runs on: target. $1: oid of the table.
-- Returns: pid (0: a prepared transaction), user, state, seconds since the transaction began; what this role may not see is null
--          or said so. At most five, the oldest first.
select coalesce(l.pid, 0) as "pid",
       coalesce(a.usename, '?')::text as "user",
       coalesce(a.state, 'state not shown')::text as "state",
       pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start))::int as "seconds"
from (
  select distinct l.pid
  from pg_catalog.pg_locks l
  where l.locktype = 'relation' and l.granted
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
    and (l.relation = $1::oid or l.relation in (select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = $1::oid))
    and l.pid is distinct from pg_catalog.pg_backend_pid()) as l
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
order by a.xact_start nulls last, l.pid
limit 5
