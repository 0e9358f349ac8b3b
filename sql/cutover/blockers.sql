-- What: transactions that keep the fence from being raised: they have written to the tables, or hold a lock that no
--       writer can hold at the same time as we do.
-- Runs on: source, or target: the side to be fenced. $1: oid[] of relations.
-- Returns: pid (null: a prepared transaction), table, who, seconds; the oldest first. Only what the role may see.
select l.pid as "pid",
       pg_catalog.min(l.relation::pg_catalog.regclass::text) as "table",
       coalesce(pg_catalog.min(a.usename::text), 'an unknown role') || ', ' || coalesce(pg_catalog.min(a.state), 'prepared or not shown') as "who",
       coalesce(pg_catalog.max(extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)), 0)::float8 as "seconds"
from pg_catalog.pg_locks l
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation'
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and l.relation = any ($1::oid[])
  and l.mode in ('RowExclusiveLock', 'ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  and l.granted
  and l.pid is distinct from pg_catalog.pg_backend_pid()
group by l.pid, l.virtualtransaction
order by 4 desc
