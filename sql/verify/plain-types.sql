-- What: the types of columns with their length, precision and scale, also where a domain sets them.
-- Runs on: source and target. $1: oid[] of tables.
-- Returns: relid, attnum, type (domains resolved, usable in a cast: `numeric(10,2)`).
with recursive base (relid, attnum, type, modifier, kind, next_type, next_modifier) as (
  select a.attrelid, a.attnum, a.atttypid, a.atttypmod, t.typtype, t.typbasetype, t.typtypmod
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_type t on t.oid = a.atttypid
  where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
  union all
  select b.relid, b.attnum, t.oid, b.next_modifier, t.typtype, t.typbasetype, t.typtypmod
  from base b
  join pg_catalog.pg_type t on t.oid = b.next_type
  where b.kind = 'd'
)
select b.relid::bigint as "relid", b.attnum::int as "attnum", pg_catalog.format_type(b.type, b.modifier) as "type"
from base b
where b.kind <> 'd'
