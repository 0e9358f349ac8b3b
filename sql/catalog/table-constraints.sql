-- What: checks, unique and exclusion constraints of tables.
-- Runs on: source and target. $1: oid[].
-- Returns: relid, name, type (c, u, x), definition without NOT VALID. Those that a partition or a child inherits are left out.
select k.conrelid::bigint as "relid",
       k.conname::text as "name",
       k.contype::text as "type",
       pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', '') as "definition"
from pg_catalog.pg_constraint k
where k.conrelid = any ($1::oid[]) and k.contype in ('c', 'u', 'x') and k.conislocal
order by k.conrelid, k.conname
