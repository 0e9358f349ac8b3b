-- What: what refers to a table, function or type in one of these schemas, or to one of these relations, without being in them itself: foreign keys,
--       views, triggers, policies, defaults, columns.
-- Runs on: source. $1: text[] of schema names. $2: oid[] of tables and sequences.
-- Returns: classid and objid of the referring object (a view instead of its rule), and what it refers to.
with there as (
  select 'pg_catalog.pg_class'::pg_catalog.regclass::oid as classid, c.oid as objid, c.relnamespace as space, c.relname as name, c.oid as relation
  from pg_catalog.pg_class c
  union all
  select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.pronamespace, p.proname, 0::oid from pg_catalog.pg_proc p
  union all
  select 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typnamespace, t.typname, t.typrelid from pg_catalog.pg_type t
)
select distinct on (1, 2)
  (case when r.oid is not null and r.rulename = '_RETURN' then 'pg_catalog.pg_class'::pg_catalog.regclass::oid
        else d.classid end)::bigint::float8 as "classid",
  (case when r.oid is not null and r.rulename = '_RETURN' then r.ev_class else d.objid end)::bigint::float8 as "objid",
  n.nspname::text as "schema",
  t.name::text as "name"
from there t
join pg_catalog.pg_namespace n on n.oid = t.space
join pg_catalog.pg_depend d on d.refclassid = t.classid and d.refobjid = t.objid
left join pg_catalog.pg_rewrite r on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and r.oid = d.objid
where n.nspname = any ($1::text[]) or t.relation = any ($2::oid[])
order by 1, 2, 3, 4
