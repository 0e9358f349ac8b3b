-- What: the values that rows have in a column that was added when they were there already, without being rewritten.
-- Runs on: source and target, in the snapshot in which the fingerprint is read. $1: oid[] of tables.
-- Returns: root; relid, the relation that holds the rows, a leaf or the table itself; column; value, as text in braces. A
--          column that is not listed for a relation is null in its rows from before. None before 11, which rewrites instead.
with recursive tree as (
  select c.oid as root, c.oid
  from pg_catalog.pg_class c
  where c.oid = any ($1::oid[])
  union all
  select t.root, i.inhrelid
  from tree t
  join pg_catalog.pg_class p on p.oid = t.oid and p.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select t.root::bigint as "root",
       t.oid::bigint as "relid",
       a.attname::text as "column",
       a.value as "value"
from tree t
join pg_catalog.pg_class c on c.oid = t.oid and c.relkind <> 'p'
-- Before 11, the columns are these.
cross join (select false as atthasmissing, null::text as attmissingval) as before11
cross join lateral (
  select x.attname, attmissingval::text as value, atthasmissing as has
  from pg_catalog.pg_attribute x
  where x.attrelid = t.oid and x.attnum > 0 and not x.attisdropped) as a
where a.has
