-- What: what a schema is left out for, or cannot say by itself: provider schemas, subscriptions, tablespaces.
-- Runs on: source.
-- Returns: one row. encoding of the server; schemas, a JSON array of {name, owner, isForeign}: isForeign is true where
--          the session's role has no rights of the owner; extensions of {name, schema, version}; subscriptions, and
--          tablespaces of {name, relations}.
select
  pg_catalog.current_setting('server_encoding') as "encoding",
  current_user::text as "role",
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', n.nspname,
      'owner', pg_catalog.pg_get_userbyid(n.nspowner),
      'isForeign', not pg_catalog.pg_has_role(n.nspowner, 'USAGE')) order by n.nspname), '[]'::jsonb)
   from pg_catalog.pg_namespace n
   where n.nspname !~ '^pg_' and n.nspname <> 'information_schema') as "schemas",
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', e.extname, 'schema', n.nspname, 'version', e.extversion) order by e.extname), '[]'::jsonb)
   from pg_catalog.pg_extension e
   join pg_catalog.pg_namespace n on n.oid = e.extnamespace) as "extensions",
  (select coalesce(pg_catalog.jsonb_agg(s.subname order by s.subname), '[]'::jsonb)
   from pg_catalog.pg_subscription s
   where s.subdbid = (select oid from pg_catalog.pg_database where datname = pg_catalog.current_database()))
    as "subscriptions",
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'name', t.spcname,
      'relations', (select count(*) from pg_catalog.pg_class c where c.reltablespace = t.oid)) order by t.spcname), '[]'::jsonb)
   from pg_catalog.pg_tablespace t
   where exists (select 1 from pg_catalog.pg_class c where c.reltablespace = t.oid and c.oid >= 16384)) as "tablespaces"
