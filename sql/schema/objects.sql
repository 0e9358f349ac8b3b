-- What: every object that a schema consists of, by a name that is the same on any server.
-- Runs on: source and target.
-- Returns: classid and objid as in pg_depend; identity as pg_identify_object() writes it, which has no regard for the
--          search path; schema and name where the object is in a schema; isKey for what identifies rows. Rows without an
--          objid (0) stand for states: "primary key of", "attached primary key of", "partition", "row security of". Objects of the server
--          and temporary ones are left out.
with
spaces as (
  select n.oid from pg_catalog.pg_namespace n
  where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
),
relations as (
  select c.oid, c.relname, c.relnamespace, c.relkind, c.relispartition, c.relrowsecurity
  from pg_catalog.pg_class c
  where c.relnamespace in (select oid from spaces) and c.relpersistence <> 't'
),
found (classid, objid, schema, name, is_key) as (
  select 'pg_catalog.pg_namespace'::pg_catalog.regclass::oid, n.oid, n.oid, null::name, false
  from pg_catalog.pg_namespace n where n.oid in (select oid from spaces)
  union all
  select 'pg_catalog.pg_class'::pg_catalog.regclass, c.oid, c.relnamespace, c.relname,
         exists (select 1 from pg_catalog.pg_index i
                 where i.indexrelid = c.oid and i.indisunique and i.indpred is null and i.indexprs is null)
  from pg_catalog.pg_class c where c.oid in (select oid from relations) and c.relkind <> 't'
  union all
  select 'pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, p.pronamespace, p.proname, false
  from pg_catalog.pg_proc p where p.pronamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_type'::pg_catalog.regclass, t.oid, t.typnamespace, t.typname, false
  from pg_catalog.pg_type t where t.typnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, k.connamespace, k.conname, k.contype in ('p', 'u')
  from pg_catalog.pg_constraint k
  where k.connamespace in (select oid from spaces) and (k.conrelid <> 0 or k.contypid <> 0)
  union all
  select 'pg_catalog.pg_attrdef'::pg_catalog.regclass, d.oid, c.relnamespace, c.relname, false
  from pg_catalog.pg_attrdef d join relations c on c.oid = d.adrelid
  union all
  select 'pg_catalog.pg_trigger'::pg_catalog.regclass, t.oid, c.relnamespace, t.tgname, false
  from pg_catalog.pg_trigger t join relations c on c.oid = t.tgrelid where not t.tgisinternal
  union all
  select 'pg_catalog.pg_rewrite'::pg_catalog.regclass, r.oid, c.relnamespace, r.rulename, false
  from pg_catalog.pg_rewrite r join relations c on c.oid = r.ev_class
  union all
  select 'pg_catalog.pg_policy'::pg_catalog.regclass, p.oid, c.relnamespace, p.polname, false
  from pg_catalog.pg_policy p join relations c on c.oid = p.polrelid
  union all
  select 'pg_catalog.pg_extension'::pg_catalog.regclass, e.oid, null, e.extname, false
  from pg_catalog.pg_extension e
  union all
  select 'pg_catalog.pg_language'::pg_catalog.regclass, l.oid, null, l.lanname, false
  from pg_catalog.pg_language l where l.oid >= 16384
  union all
  select 'pg_catalog.pg_am'::pg_catalog.regclass, a.oid, null, a.amname, false
  from pg_catalog.pg_am a where a.oid >= 16384
  union all
  select 'pg_catalog.pg_transform'::pg_catalog.regclass, t.oid, null, null, false
  from pg_catalog.pg_transform t where t.oid >= 16384
  union all
  select 'pg_catalog.pg_cast'::pg_catalog.regclass, k.oid, null, null, false
  from pg_catalog.pg_cast k where k.oid >= 16384
  union all
  select 'pg_catalog.pg_operator'::pg_catalog.regclass, o.oid, o.oprnamespace, o.oprname, false
  from pg_catalog.pg_operator o where o.oprnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_opclass'::pg_catalog.regclass, o.oid, o.opcnamespace, o.opcname, false
  from pg_catalog.pg_opclass o where o.opcnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_opfamily'::pg_catalog.regclass, o.oid, o.opfnamespace, o.opfname, false
  from pg_catalog.pg_opfamily o where o.opfnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_collation'::pg_catalog.regclass, o.oid, o.collnamespace, o.collname, false
  from pg_catalog.pg_collation o where o.collnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_conversion'::pg_catalog.regclass, o.oid, o.connamespace, o.conname, false
  from pg_catalog.pg_conversion o where o.connamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass, s.oid, s.stxnamespace, s.stxname, false
  from pg_catalog.pg_statistic_ext s where s.stxnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_ts_config'::pg_catalog.regclass, o.oid, o.cfgnamespace, o.cfgname, false
  from pg_catalog.pg_ts_config o where o.cfgnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_ts_dict'::pg_catalog.regclass, o.oid, o.dictnamespace, o.dictname, false
  from pg_catalog.pg_ts_dict o where o.dictnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_ts_parser'::pg_catalog.regclass, o.oid, o.prsnamespace, o.prsname, false
  from pg_catalog.pg_ts_parser o where o.prsnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_ts_template'::pg_catalog.regclass, o.oid, o.tmplnamespace, o.tmplname, false
  from pg_catalog.pg_ts_template o where o.tmplnamespace in (select oid from spaces)
  union all
  select 'pg_catalog.pg_foreign_data_wrapper'::pg_catalog.regclass, f.oid, null, f.fdwname, false
  from pg_catalog.pg_foreign_data_wrapper f
  union all
  select 'pg_catalog.pg_foreign_server'::pg_catalog.regclass, f.oid, null, f.srvname, false
  from pg_catalog.pg_foreign_server f
  union all
  select 'pg_catalog.pg_event_trigger'::pg_catalog.regclass, e.oid, null, e.evtname, false
  from pg_catalog.pg_event_trigger e
  union all
  select 'pg_catalog.pg_publication'::pg_catalog.regclass, p.oid, null, p.pubname, false
  from pg_catalog.pg_publication p
)
select f.classid::bigint::float8 as "classid", f.objid::bigint::float8 as "objid", i.identity as "identity",
       n.nspname::text as "schema", f.name::text as "name", f.is_key as "isKey"
from found f
cross join lateral pg_catalog.pg_identify_object(f.classid, f.objid, 0) as i
left join pg_catalog.pg_namespace n on n.oid = f.schema
where i.identity is not null
union all
select 0, 0, 'primary key of ' || i.identity, null, k.conname::text, true
from pg_catalog.pg_constraint k
join relations c on c.oid = k.conrelid
cross join lateral pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) as i
where k.contype = 'p'
union all
select 0, 0, 'attached primary key of ' || i.identity, null, null, true
from pg_catalog.pg_index x
join relations c on c.oid = x.indrelid
join pg_catalog.pg_inherits h on h.inhrelid = x.indexrelid
cross join lateral pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) as i
where x.indisprimary
union all
select 0, 0, s.state || i.identity, null, null, false
from relations c
cross join lateral (values ('partition ', c.relispartition), ('row security of ', c.relrowsecurity)) as s (state, is_so)
cross join lateral pg_catalog.pg_identify_object('pg_catalog.pg_class'::pg_catalog.regclass, c.oid, 0) as i
where s.is_so
