-- What: what roles may do with schemas, tables and sequences, whichever way they came by it.
-- Runs on: source and target. $1: text[] of role names, 'public' among them for what everybody may; $2: oid[] of
--          schemas; $3: oid[] of relations.
-- Returns: role; kind ('role', 'schema', 'table', 'sequence' or 'column'); privileges, upper case; oids of the objects that
--          it has just these privileges on; columns, where kind is 'column': of the only oid, those whose rights are
--          their own. One row of kind 'role' for each role that exists.
with subject as (
  select r.oid, r.rolname::text as name from pg_catalog.pg_roles r where r.rolname = any ($1::text[])
  union all
  select 0::oid, 'public' where 'public' = any ($1::text[])
),
object as (
  select n.oid, 'schema' as kind from pg_catalog.pg_namespace n where n.oid = any ($2::oid[])
  union all
  select c.oid, case c.relkind when 'S' then 'sequence' else 'table' end
  from pg_catalog.pg_class c where c.oid = any ($3::oid[])
),
held as (
  select s.name, o.kind, o.oid,
         case o.kind
           when 'schema' then array(
             select p from pg_catalog.unnest(array['USAGE', 'CREATE']) as p
             where pg_catalog.has_schema_privilege(s.oid, o.oid, p))
           when 'sequence' then array(
             select p from pg_catalog.unnest(array['USAGE', 'SELECT', 'UPDATE']) as p
             where pg_catalog.has_sequence_privilege(s.oid, o.oid, p))
           else array(
             select p from pg_catalog.unnest(array['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) as p
             where pg_catalog.has_table_privilege(s.oid, o.oid, p))
         end as privileges
  from subject s
  cross join object o
)
select s.name as "role", 'role' as "kind", '{}'::text[] as "privileges", '{}'::float8[] as "oids", '{}'::text[] as "columns"
from subject s
union all
select h.name, h.kind, h.privileges, pg_catalog.array_agg(h.oid::bigint::float8), '{}'
from held h
where pg_catalog.cardinality(h.privileges) > 0
group by 1, 2, 3
union all
select s.name, 'column', array[p], array[a.attrelid::bigint::float8], pg_catalog.array_agg(a.attname::text order by a.attnum)
from pg_catalog.pg_attribute a
cross join subject s
cross join pg_catalog.unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as p
where a.attrelid = any ($3::oid[]) and a.attacl is not null and not a.attisdropped
  and pg_catalog.has_column_privilege(s.oid, a.attrelid, a.attnum, p)
  and not pg_catalog.has_table_privilege(s.oid, a.attrelid, p)
group by s.name, p, a.attrelid
order by 1, 2
