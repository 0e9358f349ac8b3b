-- What: transactions that have written to these tables, or are about to, and are not over: they hold a lock that a write
--       takes. In pg_locks, which shows everybody's to everybody; age and name are shown to some roles only.
-- Runs on: source, or target: the side to be fenced. $1: oid[] of tables, with everything below them in their partition
--       trees. $2: the id of the transaction that has raised the fence, or null.
-- Returns: id (of the transaction, while it is not prepared), pid (null: prepared), table, who, seconds (null: not shown),
--          isOlder (it is prepared, or its id is older than $2: who raised the fence may have let it pass).
with recursive tree (oid) as (
  select c.oid from pg_catalog.pg_class c where c.oid = any ($1::oid[])
  union
  select i.inhrelid
  from tree t
  join pg_catalog.pg_class p on p.oid = t.oid and p.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
),
-- Read once: each reading shows another moment.
lock as (
  select l.locktype, l.database, l.relation, l.transactionid, l.mode, l.pid, l.virtualtransaction
  from pg_catalog.pg_locks l
  where l.granted and l.locktype in ('relation', 'transactionid')
),
-- Ids go round in 32 bits; those of running transactions are never more than half of them apart.
own as (
  select l.virtualtransaction,
         pg_catalog.bool_or(((l.transactionid::text::bigint - $2::bigint) & 4294967295) >= 2147483648) as is_older
  from lock l
  where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock'
  group by l.virtualtransaction
)
select l.virtualtransaction as "id",
       l.pid as "pid",
       pg_catalog.min(l.relation::pg_catalog.regclass::text) as "table",
       coalesce(pg_catalog.min(a.usename::text), 'an unknown role') || ', ' || coalesce(pg_catalog.min(a.state), 'prepared or not shown') as "who",
       pg_catalog.max(extract(epoch from pg_catalog.clock_timestamp() - coalesce(a.xact_start, p.prepared)))::float8 as "seconds",
       l.pid is null or coalesce(pg_catalog.bool_or(o.is_older), false) as "isOlder"
from lock l
left join own o on o.virtualtransaction = l.virtualtransaction
left join pg_catalog.pg_stat_activity a on a.pid = l.pid
left join pg_catalog.pg_prepared_xacts p on l.pid is null and l.virtualtransaction = '-1/' || p.transaction::text
where l.locktype = 'relation'
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and l.relation in (select t.oid from tree t)
  and l.mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
  and l.pid is distinct from pg_catalog.pg_backend_pid()
group by l.virtualtransaction, l.pid
order by 5 desc nulls last, 2
