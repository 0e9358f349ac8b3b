-- What: what the target has already: extensions, and whether the ledger of a copy exists.
-- Runs on: target.
-- Returns: one row. extensions, a JSON array of {name, schema, version}; hasLedger.
select
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', e.extname, 'schema', n.nspname, 'version', e.extversion) order by e.extname), '[]'::jsonb)
   from pg_catalog.pg_extension e
   join pg_catalog.pg_namespace n on n.oid = e.extnamespace) as "extensions",
  pg_catalog.to_regclass('replicate.deferred') is not null as "hasLedger"
