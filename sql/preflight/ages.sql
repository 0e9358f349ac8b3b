-- What: how far a database is from the point where it takes no writes any more, because transaction ids have run out;
--       and what this role is shown of others.
-- Runs on: source and target.
-- Returns: one row: age in transactions and mxidAge in multixacts (2.1 thousand million is the end), oldest (the table
--          that holds it back), owner of that table; seesOthers, false where the transactions of other roles are not
--          shown, and there are any.
select pg_catalog.age(d.datfrozenxid)::float8 as "age",
       pg_catalog.mxid_age(d.datminmxid)::float8 as "mxidAge",
       t.oid::pg_catalog.regclass::text as "oldest",
       pg_catalog.pg_get_userbyid(t.relowner)::text as "owner",
       pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') or not exists (
         select 1 from pg_catalog.pg_stat_activity a
         where a.datid = d.oid and a.usesysid is not null and not pg_catalog.pg_has_role(a.usesysid, 'USAGE')) as "seesOthers"
from pg_catalog.pg_database d
left join lateral (
  select c.oid, c.relowner from pg_catalog.pg_class c
  where c.relkind in ('r', 'm') and c.relpersistence <> 't'
  order by greatest(pg_catalog.age(c.relfrozenxid), pg_catalog.mxid_age(c.relminmxid)) desc
  limit 1) as t on true
where d.datname = pg_catalog.current_database()
