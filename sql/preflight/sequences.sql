-- What: sequences, and whether this role may read and set them.
-- Runs on: source and target.
-- Returns: relid, schema, name, owner, ownerRelid (null for one that no column owns), isOwned, mayRead, maySet.
select c.oid::bigint::float8 as "relid",
       n.nspname::text as "schema",
       c.relname::text as "name",
       pg_catalog.pg_get_userbyid(c.relowner)::text as "owner",
       d.refobjid::bigint::float8 as "ownerRelid",
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_sequence_privilege(c.oid, 'SELECT') as "mayRead",
       pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_sequence_privilege(c.oid, 'UPDATE') as "maySet"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_depend d
  on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0
 and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
where c.relkind = 'S' and c.relpersistence <> 't'
  and n.nspname not in ('replicate', 'information_schema') and n.nspname !~ '^pg_'
order by 1, 2
