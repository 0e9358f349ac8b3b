-- What: the triggers of a capture, on whatever relation, without the clones that go with their parent.
-- Runs on: source. $1: capture id.
-- Returns: table (quoted and qualified), trigger.
select c.oid::pg_catalog.regclass::text as "table", t.tgname::text as "trigger"
-- By what depends on the function: pg_trigger has no index by which all of its triggers could be found.
from pg_catalog.pg_proc p
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
join pg_catalog.pg_depend f on f.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass
  and f.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and f.refobjid = p.oid
join pg_catalog.pg_trigger t on t.oid = f.objid and t.tgfoid = p.oid
join pg_catalog.pg_class c on c.oid = t.tgrelid
where n.nspname = 'replicate'
  and p.proname = ('capture_' || $1::int)::pg_catalog.name
  and not t.tgisinternal
  -- From 13 on a clone names its parent; on 11 and 12 it depends on it, and goes with it.
  and coalesce((pg_catalog.to_jsonb(t) ->> 'tgparentid')::oid, 0::oid) = 0::oid
  and not exists (
    select 1 from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_trigger'::pg_catalog.regclass and d.objid = t.oid
      and d.refclassid = 'pg_catalog.pg_trigger'::pg_catalog.regclass)
order by 1, 2
