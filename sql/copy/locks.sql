-- What: the tables that have to be locked to take indexes, constraints and foreign keys away from a table: itself, and
--       those at the other end of its foreign keys, as far as the role may lock them. Partitions go with their root.
-- Runs on: target. $1: oid of the table. Reads no definitions, which could vanish while nothing is locked.
-- Returns: name (quoted and qualified), in the order in which everybody locks them.
with recursive tree as (
  select $1::oid as oid
  union all
  select i.inhrelid
  from tree t
  join pg_catalog.pg_class c on c.oid = t.oid and c.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
),
partner as (
  select u.oid
  from pg_catalog.pg_constraint k
  cross join lateral (values (k.conrelid), (k.confrelid)) as u (oid)
  where k.contype = 'f'
    and (k.conrelid in (select oid from tree) or k.confrelid in (select oid from tree))
)
select pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as "name"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = $1::oid
   or (c.oid in (select oid from partner) and c.oid not in (select oid from tree)
       and pg_catalog.pg_has_role(c.relowner, 'USAGE'))
order by c.oid
