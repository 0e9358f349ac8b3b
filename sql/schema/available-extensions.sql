-- What: the extensions that CREATE EXTENSION would take.
-- Runs on: target. Reads files of the server, and fails where one of them is damaged.
-- Returns: name, version (the one it would get).
select a.name::text as "name", a.default_version as "version" from pg_catalog.pg_available_extensions a
