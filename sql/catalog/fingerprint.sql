-- What: what has to stay the same between two batches of a table: its columns, its unique keys, its capture triggers.
-- Runs on: source, inside the batch's snapshot after the tables are locked. $1: oid[].
-- Returns: relid, schema, name, fingerprint. A table that is gone returns no row. The triggers' xmin is part of it:
--          a trigger that was disabled and enabled again in between may have missed changes.
select c.oid::bigint as "relid",
       n.nspname::text as "schema",
       c.relname::text as "name",
       pg_catalog.jsonb_build_object(
         'columns', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
               a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, a.attcollation::bigint,
               coalesce(pg_catalog.to_jsonb(a) ->> 'attgenerated', '')) order by a.attnum), '[]'::jsonb)
           from pg_catalog.pg_attribute a
           where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
         'keys', (
           select coalesce(pg_catalog.jsonb_agg(distinct i.indkey::text), '[]'::jsonb)
           from pg_catalog.pg_index i
           where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null),
         'triggers', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
               t.tgname, t.tgenabled, t.xmin::text) order by t.tgname), '[]'::jsonb)
           from pg_catalog.pg_trigger t
           where t.tgrelid = c.oid and t.tgname like 'zzz\_replicate\_%'),
         'file', coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)
       )::text as "fingerprint"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
