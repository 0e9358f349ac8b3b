-- What: transactions that are open for long, and those that are prepared. Installing capture, or taking indexes away,
--       waits for those that have written to a table.
-- Runs on: source and target. $1: oid[] of tables and partitions; $2: seconds from which on it is long.
-- Returns: pid (null: prepared), gid (null: not prepared), role, application, seconds, tables (that it has locked, as
--          a writer does).
with held as (
  select l.pid, l.virtualtransaction, pg_catalog.array_agg(distinct l.relation::pg_catalog.regclass::text) as tables
  from pg_catalog.pg_locks l
  where l.locktype = 'relation' and l.granted and l.relation = any ($1::oid[])
    and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
    and l.mode not in ('AccessShareLock', 'RowShareLock')
  group by 1, 2
)
select a.pid as "pid", null::text as "gid", a.usename::text as "role", a.application_name as "application",
       extract(epoch from pg_catalog.clock_timestamp() - a.xact_start)::float8 as "seconds",
       coalesce(h.tables, '{}') as "tables"
from pg_catalog.pg_stat_activity a
left join held h on h.pid = a.pid
where a.datname = pg_catalog.current_database() and a.pid <> pg_catalog.pg_backend_pid() and a.usesysid is not null
  and a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => $2::float8)
union all
select null, p.gid, p.owner::text, null,
       extract(epoch from pg_catalog.clock_timestamp() - p.prepared)::float8, coalesce(h.tables, '{}')
from pg_catalog.pg_prepared_xacts p
left join pg_catalog.pg_locks x on x.locktype = 'transactionid' and x.transactionid = p.transaction and x.pid is null
left join held h on h.pid is null and h.virtualtransaction = x.virtualtransaction
where p.database = pg_catalog.current_database()
order by 5 desc
