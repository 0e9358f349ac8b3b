-- What: the triggers of a fence, on whatever relation.
-- Runs on: source, or target: the fenced side. $1: name of the fence's function.
-- Returns: relid, table (quoted and qualified), trigger (quoted), in the order of oids.
select c.oid::bigint::float8 as "relid",
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as "table",
       pg_catalog.quote_ident(t.tgname) as "trigger"
from pg_catalog.pg_trigger t
join pg_catalog.pg_proc f on f.oid = t.tgfoid
join pg_catalog.pg_namespace fn on fn.oid = f.pronamespace
join pg_catalog.pg_class c on c.oid = t.tgrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where fn.nspname = 'replicate' and f.proname = $1::name and not t.tgisinternal
order by c.oid, t.tgname
