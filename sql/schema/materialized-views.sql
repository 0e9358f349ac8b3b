-- What: the materialized views in the order in which they can be filled: one that reads another comes after it.
-- Runs on: source and target.
-- Returns: schema, name, isPopulated.
with recursive
views as (
  select c.oid, c.relkind from pg_catalog.pg_class c where c.relkind in ('m', 'v')
),
reads as (
  select distinct r.ev_class as reader, d.refobjid as read
  from pg_catalog.pg_rewrite r
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = r.oid
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid <> r.ev_class
  where r.ev_class in (select oid from views) and d.refobjid in (select oid from views)
),
ranked as (
  select v.oid, 0 as rank from views v
  union
  select r.reader, k.rank + 1 from ranked k join reads r on r.read = k.oid
)
select n.nspname::text as "schema", c.relname::text as "name", c.relispopulated as "isPopulated"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind = 'm' and n.nspname <> 'replicate' and n.nspname !~ '^pg_'
order by (select max(k.rank) from ranked k where k.oid = c.oid), 1, 2
