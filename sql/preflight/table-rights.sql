-- What: privileges on tables that this role lacks. An owner may have revoked them from itself.
-- Runs on: source and target. $1: oid[] of relations; $2: text[] of privileges that are needed; $3: those of which one is
--          enough, upper case.
-- Returns: relid, schema, name, owner, lacks (upper case), for those that lack any.
select c.oid::bigint::float8 as "relid", n.nspname::text as "schema", c.relname::text as "name",
       pg_catalog.pg_get_userbyid(c.relowner)::text as "owner", l.lacks as "lacks"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join lateral (
  select array(
    select p from pg_catalog.unnest($2::text[]) as p where not pg_catalog.has_table_privilege(c.oid, p)
    union all
    select ($3::text[])[1]
    where pg_catalog.cardinality($3::text[]) > 0
      and not exists (select 1 from pg_catalog.unnest($3::text[]) as q where pg_catalog.has_table_privilege(c.oid, q))) as lacks) as l
where c.oid = any ($1::oid[]) and pg_catalog.cardinality(l.lacks) > 0
order by 2, 3
