-- What: the types that the columns of some tables are made of, down to the last element: domains, arrays, composites,
--       ranges. Needed where types of the same name need not be the same, and where a type's text form depends on the
--       server's version, to find it inside of others.
-- Runs on: source and target. $1: oid[] of tables, $2: oid[] of further types.
-- Returns: oid, name (usable in a cast, no length or precision), kind (typtype), isBuiltin, element (of an array, else 0),
--          base (of a domain, else 0) and limited (the base with its length or precision), subtype (of a range, else 0) and
--          range (its collation, operator class and canonical function), ranges (of a multirange, else 0), attributes (of a
--          composite; JSON array of name, type and limited), isOfTable (it is the type of a table's rows), labels (of an enum; in order), extension (or null).
-- Reads through to_jsonb() where a column does not exist on every version.
with recursive
range (oid, subtype, multirange, details) as (
  select g.rngtypid, g.rngsubtype, coalesce((pg_catalog.to_jsonb(g) ->> 'rngmultitypid')::oid, 0),
         pg_catalog.concat_ws(', ',
           'operator class ' || o.opcname,
           case when g.rngcollation <> 0 then 'collation ' || coalesce(c.collname::text, '?') end,
           case when g.rngcanonical <> 0 then 'canonical function ' || p.proname end)
  from pg_catalog.pg_range g
  join pg_catalog.pg_opclass o on o.oid = g.rngsubopc
  left join pg_catalog.pg_collation c on c.oid = g.rngcollation
  left join pg_catalog.pg_proc p on p.oid = g.rngcanonical
),
reachable (oid) as (
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
    select g.subtype from range g where g.oid = t.oid
    union all
    select g.oid from range g where g.multirange = t.oid
    union all
    select a.atttypid
    from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) as part
)
select t.oid::bigint::float8 as "oid",
       pg_catalog.format_type(t.oid, -1) as "name",
       t.typtype::text as "kind",
       t.oid < 16384 as "isBuiltin",
       case when t.typlen = -1 then t.typelem else 0 end::bigint::float8 as "element",
       case when t.typtype = 'd' then t.typbasetype else 0 end::bigint::float8 as "base",
       case when t.typtype = 'd' then pg_catalog.format_type(t.typbasetype, t.typtypmod) end as "limited",
       coalesce(g.subtype, 0)::bigint::float8 as "subtype",
       g.details as "range",
       coalesce(m.oid, 0)::bigint::float8 as "ranges",
       (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
            'name', a.attname, 'type', a.atttypid::bigint, 'limited', pg_catalog.format_type(a.atttypid, a.atttypmod))
            order by a.attnum), '[]'::jsonb)
        from pg_catalog.pg_attribute a
        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) as "attributes",
       exists (select 1 from pg_catalog.pg_class c where c.oid = t.typrelid and c.relkind <> 'c') as "isOfTable",
       (select coalesce(pg_catalog.jsonb_agg(e.enumlabel order by e.enumsortorder), '[]'::jsonb)
        from pg_catalog.pg_enum e
        where t.typtype = 'e' and e.enumtypid = t.oid) as "labels",
       (select x.extname::text
        from pg_catalog.pg_depend d
        join pg_catalog.pg_extension x on x.oid = d.refobjid
        where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid
          and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'e') as "extension"
from reachable r
join pg_catalog.pg_type t on t.oid = r.oid
left join range g on g.oid = t.oid
left join range m on m.multirange = t.oid
