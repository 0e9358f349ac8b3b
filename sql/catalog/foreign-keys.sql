-- What: the foreign keys of a table or partition tree, and those of other tables that point into it.
-- Runs on: target, and source where a sync goes two ways. $1: oid[] of the relations.
-- Returns: one row per foreign key. Those that a partition has from its parent are left out: they come and go with it.
select
  k.oid::bigint::float8 as "oid",
  k.conname::text as "name",
  k.conrelid::bigint::float8 as "relid",
  k.confrelid::bigint::float8 as "referenced",
  n.nspname::text as "schema",
  c.relname::text as "table",
  c.relkind::text as "tableKind",
  pg_catalog.pg_get_constraintdef(k.oid) as "definition",
  k.convalidated as "isValid",
  pg_catalog.obj_description(k.oid, 'pg_constraint') as "comment",
  r.relkind::text as "referencedKind"
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class r on r.oid = k.confrelid
where k.contype = 'f'
  and (k.conrelid = any ($1::oid[]) or k.confrelid = any ($1::oid[]))
  and coalesce((pg_catalog.to_jsonb(k) ->> 'conparentid')::oid, 0::oid) = 0::oid
order by k.oid
