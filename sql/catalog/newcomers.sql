-- What: tables that are not among those known: what an application has created since, or what nobody chose.
-- Runs on: source or target, whichever a way of the sync reads from. $1: oid[] of the tables known.
-- Returns: oid, schema, name, and of the schema and the session as in catalog/relations; by name. Partitions go with their root; temporary tables, those of extensions, of the server
--          and our own are left out.
select c.oid::bigint::float8 as "oid", n.nspname::text as "schema", c.relname::text as "name",
       pg_catalog.pg_get_userbyid(n.nspowner)::text as "schemaOwner",
       not pg_catalog.pg_has_role(n.nspowner, 'USAGE') as "isForeignSchema", current_user::text as "role"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p')
  and not c.relispartition
  and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog', 'information_schema', 'replicate')
  and n.nspname !~ '^pg_'
  and c.oid not in (select unnest from pg_catalog.unnest($1::oid[]))
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
order by 2, 3
