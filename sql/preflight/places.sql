-- What: schemas and tablespaces of tables, of their partitions and of their indexes, and what this role may do there:
--       whoever builds an index needs CREATE on the schema, and on a tablespace that is not the database's own.
-- Runs on: source and target. $1: oid[] of tables.
-- Returns: kind ('schema' or 'tablespace'), name, owner, mayUse, mayCreate.
with recursive tree as (
  select c.oid from pg_catalog.pg_class c where c.oid = any ($1::oid[])
  union
  select i.inhrelid from tree t
  join pg_catalog.pg_class c on c.oid = t.oid and c.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select 'schema' as "kind", n.nspname::text as "name", pg_catalog.pg_get_userbyid(n.nspowner)::text as "owner",
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') as "mayUse",
       pg_catalog.has_schema_privilege(n.oid, 'CREATE') as "mayCreate"
from pg_catalog.pg_namespace n
where n.oid in (select c.relnamespace from pg_catalog.pg_class c join tree t on t.oid = c.oid)
union all
select 'tablespace', s.spcname::text, pg_catalog.pg_get_userbyid(s.spcowner)::text, true,
       pg_catalog.has_tablespace_privilege(s.oid, 'CREATE')
from pg_catalog.pg_tablespace s
where s.oid in (select c.reltablespace from pg_catalog.pg_index i join tree t on t.oid = i.indrelid
                join pg_catalog.pg_class c on c.oid = i.indexrelid)
order by 1, 2
