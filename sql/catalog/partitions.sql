-- What: the leaf partitions of partitioned tables, and whether capture reaches them.
-- Runs on: source, inside the batch's snapshot after the roots are locked. $1: oid[] of partitioned roots.
-- Returns: root, oid, schema, name, bound, isCaptured (TRUNCATE trigger of our own and an enabled row trigger).
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
       (select count(distinct g.tgname) = 2
        from pg_catalog.pg_trigger g
        where g.tgrelid = c.oid and g.tgenabled = 'A'
          and g.tgname in ('zzz_replicate_capture', 'zzz_replicate_truncate')) as "isCaptured"
from tree t
join pg_catalog.pg_class c on c.oid = t.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relkind <> 'p'
order by t.root, c.oid
