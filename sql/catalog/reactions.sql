-- What: what would act on rows written to a table or partition tree: enabled triggers and rules of the application.
--       Foreign keys' own triggers are not among them, nor are those of a capture, which has to see the rows.
-- Runs on: target, and source where a sync goes two ways. $1: oid[] of the relations.
-- Returns: kind ('trigger' or 'rule'), relid, schema, table, name, enabled (O origin, A always, R replica).
select 'trigger' as "kind", t.tgrelid::bigint::float8 as "relid", n.nspname::text as "schema", c.relname::text as "table",
       t.tgname::text as "name", t.tgenabled::text as "enabled"
from pg_catalog.pg_trigger t
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace pn on pn.oid = p.pronamespace
where t.tgrelid = any ($1::oid[])
  and t.tgenabled <> 'D'
  -- Internal are those behind foreign keys and deferrable keys, but before 15 also the clones on partitions, which
  -- fire on their own account.
  and (not t.tgisinternal or not exists (
    select 1 from pg_catalog.pg_constraint k where k.oid = t.tgconstraint and k.contype <> 't'))
  and pn.nspname <> 'replicate'
union all
select 'rule', r.ev_class::bigint::float8, n.nspname::text, c.relname::text, r.rulename::text, r.ev_enabled::text
from pg_catalog.pg_rewrite r
join pg_catalog.pg_class c on c.oid = r.ev_class
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where r.ev_class = any ($1::oid[])
  and r.ev_type <> '1'
  and r.ev_enabled <> 'D'
order by 1, 2, 5
