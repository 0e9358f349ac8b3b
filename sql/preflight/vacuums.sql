-- What: autovacuum at work on tables that have to be vacuumed lest transaction ids wrap around. One of these does not
--       give way to others, as autovacuum does else: CREATE TRIGGER waits for it, and every writer behind that.
-- Runs on: source. $1: oid[] of tables and partitions.
-- Returns: pid, table, age (transactions since the oldest row that is not frozen). Told by locks and ages, since an
--          ordinary role does not see what autovacuum is doing.
select l.pid as "pid", c.oid::pg_catalog.regclass::text as "table", pg_catalog.age(c.relfrozenxid)::float8 as "age"
from pg_catalog.pg_locks l
join pg_catalog.pg_class c on c.oid = l.relation
join pg_catalog.pg_stat_activity a on a.pid = l.pid and a.usesysid is null
where l.locktype = 'relation' and l.granted and l.mode = 'ShareUpdateExclusiveLock'
  and l.relation = any ($1::oid[])
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
  and (pg_catalog.age(c.relfrozenxid) > least(
         pg_catalog.current_setting('autovacuum_freeze_max_age')::int,
         (select o.option_value::int from pg_catalog.pg_options_to_table(c.reloptions) o
          where o.option_name = 'autovacuum_freeze_max_age'))
       or pg_catalog.mxid_age(c.relminmxid) > least(
         pg_catalog.current_setting('autovacuum_multixact_freeze_max_age')::int,
         (select o.option_value::int from pg_catalog.pg_options_to_table(c.reloptions) o
          where o.option_name = 'autovacuum_multixact_freeze_max_age')))
order by 2
