-- What: tables that are not among those known: what an application has created since, or what nobody chose.
-- Runs on: source or target, whichever a way of the sync reads from. $1: oid[] of the tables known. $2: whether foreign tables
--          count.
-- Returns: oid, schema, name, and of the schema and the session as in catalog/relations; by name; kind (r table, p partitioned,
--          f foreign), persistence (p permanent, u unlogged), isTyped (made OF a type), inherits (from other tables, or others
--          from it), and stamp, which changes with the table's name, columns and first index. Partitions go with their root;
--          temporary tables, those of extensions, of the server and our own are left out.
select c.oid::bigint::float8 as "oid", n.nspname::text as "schema", c.relname::text as "name",
       pg_catalog.pg_get_userbyid(n.nspowner)::text as "schemaOwner",
       not pg_catalog.pg_has_role(n.nspowner, 'USAGE') as "isForeignSchema", current_user::text as "role",
       c.relkind::text as "kind", c.relpersistence::text as "persistence", c.reloftype <> 0 as "isTyped",
       exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid or i.inhparent = c.oid and c.relkind <> 'p')
         as "inherits",
       pg_catalog.concat_ws(' ', c.xmin, c.relnatts, c.relhasindex) as "stamp"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where (c.relkind in ('r', 'p') or c.relkind = 'f' and $2::boolean)
  and not c.relispartition
  and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog', 'information_schema', 'replicate')
  and n.nspname !~ '^pg_'
  and c.oid not in (select unnest from pg_catalog.unnest($1::oid[]))
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e')
order by 2, 3
