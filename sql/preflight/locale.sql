-- What: encoding of a database, and how it sorts.
-- Runs on: source and target.
-- Returns: one row: encoding, provider ('c' libc, 'i' ICU, 'b' builtin), locale (of the provider), collate and ctype (of
--          libc), version (of the collation as recorded; null where the server keeps none).
select pg_catalog.current_setting('server_encoding') as "encoding",
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c') as "provider",
       coalesce(pg_catalog.to_jsonb(d) ->> 'datlocale', pg_catalog.to_jsonb(d) ->> 'daticulocale', d.datcollate::text) as "locale",
       d.datcollate::text as "collate",
       d.datctype::text as "ctype",
       pg_catalog.to_jsonb(d) ->> 'datcollversion' as "version"
from pg_catalog.pg_database d
where d.datname = pg_catalog.current_database()
