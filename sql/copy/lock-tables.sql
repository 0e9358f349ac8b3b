-- What: locks the tables that are touched when indexes, constraints and foreign keys are taken away from a table:
--       itself, and those at the other end of its foreign keys, as far as the role may lock them. Partitions are
--       locked with their root. Everybody locks in the same order.
-- Runs on: target, in the transaction that takes away. {{relid}}: oid of the table. Reads no definitions, which could
--          vanish while nothing is locked.
-- Returns: nothing.
do $do$
begin
  execute (
    with recursive tree as (
      select {{relid}}::pg_catalog.oid as oid
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
    select 'lock table ' || pg_catalog.string_agg(
             pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), ', ' order by c.oid)
           || ' in access exclusive mode'
    from pg_catalog.pg_class c
    join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where c.oid = {{relid}}
       or (c.oid in (select oid from partner) and c.oid not in (select oid from tree)
           and pg_catalog.pg_has_role(c.relowner, 'USAGE')));
end
$do$
