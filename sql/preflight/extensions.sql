-- What: extensions, and which of them the tables need: for the types of columns, or for indexes, defaults, constraints
--       and triggers.
-- Runs on: source. $1: oid[] of tables and partitions.
-- Returns: name, version, schema; types: oids of the tables with columns of its types; users: how many objects of the
--          tables need it otherwise, with one of them as an example.
with recursive
member as (
  select d.classid, d.objid, d.refobjid as extension from pg_catalog.pg_depend d
  where d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
),
-- The types of columns, and what domains, arrays, composites and ranges among them are made of.
type as (
  select a.attrelid as relid, a.atttypid as oid
  from pg_catalog.pg_attribute a
  where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
  union
  select t.relid, i.inner_type
  from type t
  join pg_catalog.pg_type p on p.oid = t.oid
  cross join lateral (
    select p.typbasetype as inner_type where p.typtype = 'd'
    union all
    select p.typelem where p.typelem <> 0
    union all
    select r.rngsubtype from pg_catalog.pg_range r where r.rngtypid = p.oid
    union all
    select a.atttypid from pg_catalog.pg_attribute a
    where p.typtype = 'c' and a.attrelid = p.typrelid and a.attnum > 0 and not a.attisdropped) as i
),
object as (
  select 'pg_catalog.pg_class'::pg_catalog.regclass as classid, i.indexrelid as objid, 'index' as what
  from pg_catalog.pg_index i where i.indrelid = any ($1::oid[])
  union all
  select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, 'default' from pg_catalog.pg_attrdef d
  where d.adrelid = any ($1::oid[])
  union all
  select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, 'constraint' from pg_catalog.pg_constraint k
  where k.conrelid = any ($1::oid[])
  union all
  select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, 'trigger' from pg_catalog.pg_trigger t
  where t.tgrelid = any ($1::oid[]) and not t.tgisinternal
)
select e.extname::text as "name", e.extversion as "version", n.nspname::text as "schema",
       array(select distinct t.relid::bigint::float8 from type t
             join member m on m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and m.objid = t.oid
             where m.extension = e.oid) as "types",
       u.users as "users", u.example as "example"
from pg_catalog.pg_extension e
join pg_catalog.pg_namespace n on n.oid = e.extnamespace
cross join lateral (
  select count(*)::int as users, pg_catalog.min(pg_catalog.pg_describe_object(o.classid, o.objid, 0)) as example
  from object o
  where exists (select 1 from pg_catalog.pg_depend d
                join member m on m.classid = d.refclassid and m.objid = d.refobjid and m.extension = e.oid
                where d.classid = o.classid and d.objid = o.objid)) as u
order by 1
