-- What: the extensions that CREATE EXTENSION would take.
-- Runs on: target. Reads files of the server, and fails where one of them is damaged.
-- Returns: name.
select a.name::text as "name" from pg_catalog.pg_available_extensions a
