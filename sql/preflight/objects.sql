-- What: the schemas of tables, and the relations in them that an application may use, with the roles that were given
--       something on them.
-- Runs on: source and target. $1: oid[] of the tables.
-- Returns: oid; kind ('schema', 'table', 'view' or 'sequence'); schema; name; owner; roles,
--          those named in its privileges or in those of its columns, 'public' for all, and the owner.
with spaces as (
  select n.oid, n.nspname, n.nspowner, n.nspacl from pg_catalog.pg_namespace n
  where n.oid in (select c.relnamespace from pg_catalog.pg_class c where c.oid = any ($1::oid[]))
),
named as (
  select s.oid, 'schema' as kind, s.nspname::text as schema, s.nspname::text as name, s.nspowner as owner, x.grantee
  from spaces s
  left join lateral pg_catalog.aclexplode(s.nspacl) as x on true
  union all
  select c.oid, case c.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'view' else 'table' end,
         s.nspname::text, c.relname::text, c.relowner, x.grantee
  from pg_catalog.pg_class c
  join spaces s on s.oid = c.relnamespace
  left join lateral (
    select (pg_catalog.aclexplode(c.relacl)).grantee
    union
    select (pg_catalog.aclexplode(a.attacl)).grantee from pg_catalog.pg_attribute a
    where a.attrelid = c.oid and a.attacl is not null and not a.attisdropped) as x on true
  where c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relpersistence <> 't'
)
select m.oid::bigint::float8 as "oid", m.kind as "kind", m.schema as "schema", m.name as "name",
       pg_catalog.pg_get_userbyid(m.owner)::text as "owner",
       pg_catalog.array_agg(distinct case when m.grantee = 0 then 'public'
                                          else pg_catalog.pg_get_userbyid(coalesce(m.grantee, m.owner))::text end) as "roles"
from named m
group by m.oid, m.kind, m.schema, m.name, m.owner
order by 2, 3, 4
