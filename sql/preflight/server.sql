-- What: what a server and this role on it are able to do, and what the database holds besides tables.
-- Runs on: source and target.
-- Returns: one row: identity of the database, recovery state, privileges, and what is left out or stands by.
select
  pg_catalog.current_database()::text as "database",
  current_user::text as "role",
  r.rolsuper as "isSuperuser",
  r.rolinherit as "inherits",
  -- Not its address, which is another one for each way that leads to it.
  (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database())::text
    || '/' || pg_catalog.pg_postmaster_start_time()::text as "identity",
  pg_catalog.pg_is_in_recovery() as "isStandby",
  coalesce((select s.ssl from pg_catalog.pg_stat_ssl s where s.pid = pg_catalog.pg_backend_pid()), false) as "isEncrypted",
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') as "mayCreateSchema",
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'TEMPORARY') as "mayCreateTemporary",
  n.oid is not null as "hasSchema",
  coalesce(pg_catalog.has_schema_privilege(n.oid, 'USAGE') and pg_catalog.has_schema_privilege(n.oid, 'CREATE'), false) as "mayUseSchema",
  pg_catalog.pg_get_userbyid(n.nspowner)::text as "schemaOwner",
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', p.pubname,
      'owner', pg_catalog.pg_get_userbyid(p.pubowner),
      'publish', pg_catalog.concat_ws(', ',
        case when p.pubinsert then 'insert' end, case when p.pubupdate then 'update' end,
        case when p.pubdelete then 'delete' end,
        case when coalesce((pg_catalog.to_jsonb(p) ->> 'pubtruncate')::boolean, false) then 'truncate' end)
      ) order by p.pubname), '[]'::jsonb)
   from pg_catalog.pg_publication p where p.puballtables) as "publications",
  (select count(*)::int from pg_catalog.pg_largeobject_metadata) as "largeObjects",
  (select count(*)::int from pg_catalog.pg_class c where c.relpersistence = 't' and c.relkind = 'r') as "temporaryTables"
from pg_catalog.pg_roles r
left join pg_catalog.pg_namespace n on n.nspname = 'replicate'
where r.rolname = current_user
