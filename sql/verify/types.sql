-- What: the types that the columns of some tables are made of, down to the last element: domains, arrays, composites,
--       ranges. Needed where a type's text form depends on the server's version, to find it inside of others.
-- Runs on: source and target. $1: oid[] of tables, $2: oid[] of further types.
-- Returns: oid, name (usable in a cast, no length or precision), kind (typtype), element (of an array, else 0),
--          base (of a domain, else 0), subtype (of a range, else 0), attributes (of a composite; JSON array of name
--          and type).
with recursive reachable (oid) as (
  select a.atttypid
  from pg_catalog.pg_attribute a
  where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
  union
  select o.oid from pg_catalog.unnest($2::oid[]) as o (oid)
  union
  select part.oid
  from reachable r
  join pg_catalog.pg_type t on t.oid = r.oid
  cross join lateral (
    select t.typelem as oid where t.typelem <> 0 and t.typlen = -1
    union all
    select t.typbasetype where t.typtype = 'd'
    union all
    select g.rngsubtype from pg_catalog.pg_range g where g.rngtypid = t.oid
    union all
    select a.atttypid
    from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) as part
)
select t.oid::bigint as "oid",
       pg_catalog.format_type(t.oid, -1) as "name",
       t.typtype::text as "kind",
       case when t.typlen = -1 then t.typelem else 0 end::bigint as "element",
       case when t.typtype = 'd' then t.typbasetype else 0 end::bigint as "base",
       coalesce(g.rngsubtype, 0)::bigint as "subtype",
       (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', a.attname, 'type', a.atttypid::bigint) order by a.attnum), '[]'::jsonb)
        from pg_catalog.pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) as "attributes"
from reachable r
join pg_catalog.pg_type t on t.oid = r.oid
left join pg_catalog.pg_range g on g.rngtypid = t.oid
