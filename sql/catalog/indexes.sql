-- What: the indexes of a table or partition tree with all that is needed to make each of them again: its definition,
--       the constraint it stands behind, and what ALTER and COMMENT have hung on them.
-- Runs on: target. $1: oid[] of the relations.
-- Returns: one row per index; `parent` is the index of the partitioned table above, if it is attached to one.
--          Reads through to_jsonb() where a column does not exist on every version.
select
  i.indexrelid::bigint::float8 as "oid",
  i.indrelid::bigint::float8 as "relid",
  (select h.inhparent from pg_catalog.pg_inherits h where h.inhrelid = i.indexrelid)::bigint::float8 as "parent",
  c.relname::text as "name",
  n.nspname::text as "schema",
  t.relname::text as "table",
  t.relkind::text as "tableKind",
  pg_catalog.pg_get_indexdef(i.indexrelid) as "definition",
  i.indisvalid as "isValid",
  i.indisclustered as "isClustered",
  i.indisreplident as "isReplicaIdentity",
  -- Null where pg_dump would say nothing: the database's own tablespace.
  ts.spcname::text as "tablespace",
  pg_catalog.array_to_string(c.reloptions, ', ') as "options",
  pg_catalog.obj_description(i.indexrelid, 'pg_class') as "comment",
  coalesce((
    select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('column', a.attnum, 'target', s.target) order by a.attnum)
    from pg_catalog.pg_attribute a
    cross join lateral (select (pg_catalog.to_jsonb(a) ->> 'attstattarget')::int) as s (target)
    where a.attrelid = i.indexrelid and s.target >= 0), '[]'::jsonb) as "statistics",
  coalesce((
    select pg_catalog.jsonb_agg(e.extname order by e.extname)
    from pg_catalog.pg_depend d
    join pg_catalog.pg_extension e on e.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid
      and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.deptype = 'x'), '[]'::jsonb)
    as "extensions",
  case when k.oid is not null then pg_catalog.jsonb_build_object(
    'name', k.conname,
    -- p primary key, u unique, x exclusion.
    'type', k.contype,
    'definition', pg_catalog.pg_get_constraintdef(k.oid),
    'isDeferrable', k.condeferrable,
    'isDeferred', k.condeferred,
    'isPeriod', coalesce((pg_catalog.to_jsonb(k) ->> 'conperiod')::boolean, false),
    'comment', pg_catalog.obj_description(k.oid, 'pg_constraint')) end as "constraint",
  -- Something else than a foreign key needs it: a view that groups by the primary key, an SQL-body function, an
  -- extension. It cannot be dropped without that.
  exists (
    select 1 from pg_catalog.pg_depend d
    where (d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = i.indexrelid
           or d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass and d.refobjid = k.oid)
      and d.deptype = 'n' and d.classid <> 'pg_catalog.pg_constraint'::pg_catalog.regclass)
  or exists (
    select 1 from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid and d.deptype = 'e')
    as "isNeeded",
  -- It calls functions that may name things without a schema. A definition is parsed and evaluated by one statement: under
  -- our search path these would find nothing, and under the application's, others could stand in for what it names.
  -- From 17 on, it is evaluated under a path of the server's own, whatever ours is.
  exists (
    select 1 from pg_catalog.pg_depend d
    left join pg_catalog.pg_operator op on d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and op.oid = d.refobjid
    join pg_catalog.pg_proc f on f.oid = case
      when d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass then d.refobjid else op.oprcode::oid end
    join pg_catalog.pg_language l on l.oid = f.prolang
    where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid
      and l.lanname not in ('internal', 'c')
      and pg_catalog.to_jsonb(f) ->> 'prosqlbody' is null
      and not exists (select 1 from pg_catalog.unnest(f.proconfig) as g (setting) where g.setting like 'search_path=%'))
    as "callsFreely"
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indexrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class t on t.oid = i.indrelid
left join pg_catalog.pg_tablespace ts on ts.oid = c.reltablespace
left join pg_catalog.pg_constraint k on k.conindid = i.indexrelid and k.conrelid = i.indrelid
  and k.contype in ('p', 'u', 'x')
where i.indrelid = any ($1::oid[])
order by i.indexrelid
