-- What: describes the types of expressions.
-- Runs on: source. $1: oid[] of types, $2: int[] of their modifiers.
-- Returns: one row per type, in the order given: the fields of `Column` in src/catalog/table.ts that tell of a type.
with recursive
given as (
  select g.n, g.oid, g.modifier
  from rows from (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::int[])) with ordinality as g (oid, modifier, n)
),
base as (
  select g.n, g.oid, g.modifier as limit_of, t.typtype, t.typbasetype, t.typtypmod, 0 as depth
  from given g
  join pg_catalog.pg_type t on t.oid = g.oid
  union all
  select b.n, t.oid, b.typtypmod, t.typtype, t.typbasetype, t.typtypmod, b.depth + 1
  from base b
  join pg_catalog.pg_type t on t.oid = b.typbasetype
  where b.typtype = 'd'
)
select pg_catalog.format_type(g.oid, g.modifier) as "type",
       pg_catalog.format_type(b.oid, -1) as "baseType",
       pg_catalog.format_type(b.oid, b.limit_of) as "plainType",
       b.oid::bigint::float8 as "baseOid",
       b.typtype::text as "baseKind",
       b.oid < 16384 as "isBuiltin",
       b.depth > 0 as "isDomain"
from given g
join base b on b.n = g.n and b.typtype <> 'd'
order by g.n
