-- What: every relation that a table pattern could mean.
-- Runs on: source and target.
-- Returns: oid, schema, name, kind (r table, p partitioned, f foreign, m materialized view), isPartition,
--          isExtensionMember; of its schema schemaOwner, and isForeignSchema where the session's role has no rights of the
--          owner; and that role. System schemas, temporary relations and our own are left out.
select c.oid::bigint::float8 as "oid",
       n.nspname::text as "schema",
       c.relname::text as "name",
       pg_catalog.pg_get_userbyid(n.nspowner)::text as "schemaOwner",
       not pg_catalog.pg_has_role(n.nspowner, 'USAGE') as "isForeignSchema",
       current_user::text as "role",
       c.relkind::text as "kind",
       c.relispartition as "isPartition",
       exists (
         select 1 from pg_catalog.pg_depend d
         where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e'
       ) as "isExtensionMember"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'f', 'm')
  and c.relpersistence <> 't'
  and n.nspname not in ('pg_catalog', 'information_schema', 'replicate')
  and n.nspname !~ '^pg_'
order by 2, 3
