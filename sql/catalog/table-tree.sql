-- What: a table and everything below it in its partition tree, intermediate levels included.
-- Runs on: target. $1: oid of an ordinary or partitioned table.
-- Returns: oid, kind (relkind), depth (0 is the table itself), in no order.
with recursive tree as (
  select c.oid, c.relkind, 0 as depth
  from pg_catalog.pg_class c
  where c.oid = $1
  union all
  select c.oid, c.relkind, t.depth + 1
  from tree t
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
  join pg_catalog.pg_class c on c.oid = i.inhrelid
  where t.relkind = 'p'
)
select oid::bigint::float8 as "oid", relkind::text as "kind", depth as "depth" from tree
