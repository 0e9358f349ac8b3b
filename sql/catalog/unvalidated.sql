-- What: constraints that old rows of a table need not meet: NOT VALID checks, from 18 on NOT NULL too, of the table, of its
--       partitions, of what it inherits from, and of the domains of its columns. pg_dump has them come after the rows.
-- Runs on: target. $1: oid[] of the relations.
-- Returns: kind ('table' or 'domain'), relid (of the first of the relations where it is a domain's), schema and owner (the
--          name of the table or domain), name, definition, comment, isMerged (a child's own that a parent has too), role (to
--          which the table or domain belongs), isOurs (we have that role's rights). Parents come before their children, since
--          a child's can go only after theirs. Those that only come with a parent's are left out, and those that are not
--          enforced.
with recursive
relation as (
  select u.oid, true as is_own from pg_catalog.unnest($1::oid[]) as u (oid)
  union
  select i.inhparent, false from relation r join pg_catalog.pg_inherits i on i.inhrelid = r.oid
),
type as (
  select a.atttypid as oid from pg_catalog.pg_attribute a
  where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
  union
  select part.oid
  from type y
  join pg_catalog.pg_type t on t.oid = y.oid
  cross join lateral (
    select t.typelem as oid where t.typelem <> 0 and t.typlen = -1
    union all
    select t.typbasetype where t.typtype = 'd'
    union all
    select g.rngsubtype from pg_catalog.pg_range g where g.rngtypid = t.oid
    union all
    select a.atttypid from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) as part
),
open as (
  select k.oid, k.conname, k.convalidated, pg_catalog.to_jsonb(k) as row, 'table' as kind, c.relname as owner,
         c.relnamespace as space, c.oid as relid, c.relowner as role, k.coninhcount > 0 as is_merged
  from pg_catalog.pg_constraint k
  join pg_catalog.pg_class c on c.oid = k.conrelid
  where k.contype in ('c', 'n') and (k.coninhcount = 0 or k.conislocal)
    and exists (select 1 from relation r where r.oid = c.oid and (r.is_own or not k.connoinherit))
  union all
  select k.oid, k.conname, k.convalidated, pg_catalog.to_jsonb(k), 'domain', t.typname, t.typnamespace, ($1::oid[])[1],
         t.typowner, false
  from pg_catalog.pg_constraint k
  join pg_catalog.pg_type t on t.oid = k.contypid
  where k.contype in ('c', 'n') and t.oid in (select y.oid from type y)
)
select o.kind as "kind", o.relid::bigint::float8 as "relid", n.nspname::text as "schema", o.owner::text as "owner",
       o.conname::text as "name", d.definition as "definition",
       pg_catalog.obj_description(o.oid, 'pg_constraint') as "comment", o.is_merged as "isMerged",
       pg_catalog.pg_get_userbyid(o.role)::text as "role", pg_catalog.pg_has_role(o.role, 'USAGE') as "isOurs"
from open o
join pg_catalog.pg_namespace n on n.oid = o.space
-- Null where another session has just dropped it, which has written it down: domains and parents are those of several tables.
cross join lateral (select pg_catalog.pg_get_constraintdef(o.oid) as definition offset 0) as d
where d.definition is not null and not o.convalidated and coalesce((o.row ->> 'conenforced')::boolean, true)
order by case when o.is_merged then (
           with recursive above as (
             select i.inhparent from pg_catalog.pg_inherits i where i.inhrelid = o.relid
             union
             select i.inhparent from above a join pg_catalog.pg_inherits i on i.inhrelid = a.inhparent)
           select count(*) from above) else 0 end, o.oid
