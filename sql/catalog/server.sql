-- What: what a server and this role on it are able to do.
-- Runs on: source and target.
-- Returns: one row: identity of the database, recovery state, privileges, and things worth a word.
select
  pg_catalog.current_database()::text as "database",
  current_user::text as "role",
  -- Not its address, which is another one for each way that leads to it.
  (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())::text
    || '/' || pg_catalog.pg_postmaster_start_time()::text as "identity",
  pg_catalog.pg_is_in_recovery() as "isStandby",
  pg_catalog.current_setting('server_encoding') as "encoding",
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') as "mayCreateSchema",
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY') as "mayCreateTemporary",
  exists (select 1 from pg_catalog.pg_namespace where nspname = 'replicate') as "hasSchema",
  coalesce((select pg_catalog.has_schema_privilege(oid, 'CREATE') from pg_catalog.pg_namespace
            where nspname = 'replicate'), false) as "mayUseSchema",
  (select pg_catalog.string_agg(pubname, ', ') from pg_catalog.pg_publication where puballtables) as "allTablesPublications",
  (select count(*)::int from pg_catalog.pg_largeobject_metadata) as "largeObjects",
  (select count(*)::int from pg_catalog.pg_prepared_xacts
   where database = pg_catalog.current_database()) as "preparedTransactions",
  (select coalesce(extract(epoch from max(clock_timestamp() - xact_start)), 0)::float8
   from pg_catalog.pg_stat_activity
   where datname = pg_catalog.current_database() and pid <> pg_catalog.pg_backend_pid()) as "oldestTransactionSeconds"
