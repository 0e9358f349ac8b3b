-- What: columns whose order or uniqueness depends on a collation: those of indexes and of partition keys.
-- Runs on: source and target. $1: oid[] of tables.
-- Returns: relid, column, isUnique (in an index that is), isRange (decides about the partition of a row), isDefault (the
--          database's own collation), collation (qualified), provider, locale, isDeterministic.
select a.attrelid::bigint::float8 as "relid",
       a.attname::text as "column",
       coalesce(pg_catalog.bool_or(k.is_unique), false) as "isUnique",
       coalesce(pg_catalog.bool_or(k.is_range), false) as "isRange",
       o.collname = 'default' and n.nspname = 'pg_catalog' as "isDefault",
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(o.collname) as "collation",
       o.collprovider::text as "provider",
       coalesce(pg_catalog.to_jsonb(o) ->> 'colllocale', pg_catalog.to_jsonb(o) ->> 'colliculocale',
                pg_catalog.to_jsonb(o) ->> 'collcollate') as "locale",
       coalesce((pg_catalog.to_jsonb(o) ->> 'collisdeterministic')::boolean, true) as "isDeterministic"
from pg_catalog.pg_attribute a
join pg_catalog.pg_collation o on o.oid = a.attcollation
join pg_catalog.pg_namespace n on n.oid = o.collnamespace
left join lateral (
  select i.indisunique as is_unique, false as is_range
  from pg_catalog.pg_index i where i.indrelid = a.attrelid and a.attnum = any (i.indkey::int2[])
  union all
  select false, true
  from pg_catalog.pg_partitioned_table p
  where p.partrelid = a.attrelid and p.partstrat = 'r' and a.attnum = any (p.partattrs::int2[])) as k on true
where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped
  -- C sorts by bytes, wherever it is.
  and o.collname not in ('C', 'POSIX')
group by a.attrelid, a.attname, o.oid, n.nspname, o.collname, o.collprovider, pg_catalog.to_jsonb(o)
having pg_catalog.count(k.is_unique) > 0
order by 1, 2
