-- What: the leaf partitions of partitioned tables, and whether capture reaches them.
-- Runs on: source, inside the batch's snapshot after the roots are locked. $1: oid[] of partitioned roots.
-- Returns: root, oid, schema, name, bound, triggers (name, state and xmin of each of the root's capture: one that was off
--          in between may have missed changes), isCaptured (both are there, the row trigger and that of TRUNCATE, and on).
with recursive tree as (
  select i.inhparent as root, i.inhrelid as oid
  from pg_catalog.pg_inherits i
  where i.inhparent = any ($1::oid[])
  union all
  select t.root, i.inhrelid
  from tree t
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select t.root::bigint as "root",
       c.oid::bigint as "oid",
       n.nspname::text as "schema",
       c.relname::text as "name",
       pg_catalog.pg_get_expr(c.relpartbound, c.oid) as "bound",
       coalesce(g.triggers, '') as "triggers",
       coalesce(g.captured, 0) = 2 as "isCaptured"
from tree t
join pg_catalog.pg_class c on c.oid = t.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join lateral (
  select pg_catalog.string_agg(g.tgname::text || ' ' || g.tgenabled::text || ' ' || g.xmin::text, ', ' order by g.tgname) as triggers,
         pg_catalog.count(*) filter (where g.tgenabled = 'A') as captured
  from replicate.capture k
  join pg_catalog.pg_proc p on p.proname = ('capture_' || k.id)::pg_catalog.name
  join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace and pn.nspname = 'replicate'
  join pg_catalog.pg_trigger g on g.tgfoid = p.oid
  where k.relid = t.root and g.tgrelid = c.oid
) as g on true
where c.relkind <> 'p'
order by t.root, c.oid
