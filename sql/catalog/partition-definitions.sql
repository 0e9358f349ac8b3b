-- What: the partitions of a table at all levels, those above before those below.
-- Runs on: source. $1: oid of the partitioned table.
-- Returns: schema, name, parentSchema, parentName, isOfRoot, definition (what follows `partition of …`).
with recursive tree as (
  select i.inhparent, i.inhrelid, 1 as depth
  from pg_catalog.pg_inherits i
  where i.inhparent = $1
  union all
  select i.inhparent, i.inhrelid, t.depth + 1
  from tree t
  join pg_catalog.pg_inherits i on i.inhparent = t.inhrelid
)
select n.nspname::text as "schema",
       c.relname::text as "name",
       pn.nspname::text as "parentSchema",
       p.relname::text as "parentName",
       t.depth = 1 as "isOfRoot",
       pg_catalog.pg_get_expr(c.relpartbound, c.oid)
         || coalesce(' partition by ' || pg_catalog.pg_get_partkeydef(c.oid), '') as "definition"
from tree t
join pg_catalog.pg_class c on c.oid = t.inhrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class p on p.oid = t.inhparent
join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
order by t.depth, n.nspname, c.relname
