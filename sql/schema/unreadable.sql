-- What: tables and sequences that pg_dump would stop at: it locks the ones and reads the others.
-- Runs on: source.
-- Returns: oid, schema, name, owner, kind (as pg_class.relkind). Those of the server and our own are left out.
select c.oid::bigint::float8 as "oid", n.nspname::text as "schema", c.relname::text as "name",
       pg_catalog.pg_get_userbyid(c.relowner)::text as "owner", c.relkind::text as "kind"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'replicate')
  and c.relpersistence <> 't'
  and case
    when not pg_catalog.has_schema_privilege(n.oid, 'USAGE') then c.relkind in ('r', 'p', 'S')
    when c.relkind in ('r', 'p') then not pg_catalog.has_table_privilege(c.oid, 'SELECT, UPDATE, DELETE, TRUNCATE')
    when c.relkind = 'S' then not pg_catalog.has_sequence_privilege(c.oid, 'SELECT')
    else false
  end
order by 2, 3
