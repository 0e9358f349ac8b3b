-- What: every object of the schema with what makes it what it is, to be compared with the same of another server.
-- Runs on: source and target.
-- Returns: kind; name, unique within the kind; schema; relation ("schema"."name" unquoted as in messages, null where
--          the object is on none); details, an object of texts. Our own objects and members of extensions are left out;
--          columns that a version does not have are read through to_jsonb(), but for those of pg_attribute (see
--          catalog/tables).
with
spaces as (
  select n.oid, n.nspname from pg_catalog.pg_namespace n
  where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'replicate')
),
members as (
  select d.classid, d.objid from pg_catalog.pg_depend d
  where d.deptype = 'e' and d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
),
relations as (
  select c.oid, c.relname, c.relkind, c.relpersistence, c.relispartition, c.relpartbound, c.relispopulated,
         c.relrowsecurity, c.relforcerowsecurity, c.relreplident, s.nspname,
         pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(c.relname) as label
  from pg_catalog.pg_class c
  join spaces s on s.oid = c.relnamespace
  where c.relpersistence <> 't' and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S', 'c')
    and not exists (select 1 from members m
                    where m.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and m.objid = c.oid)
)
select 'extension' as "kind", e.extname::text as "name", null::text as "schema", null::text as "relation",
       pg_catalog.jsonb_build_object('schema', n.nspname, 'version', e.extversion) as "details"
from pg_catalog.pg_extension e
join pg_catalog.pg_namespace n on n.oid = e.extnamespace
union all
select case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                      else 'table' end,
       c.label, c.nspname, c.label,
       pg_catalog.jsonb_build_object(
         'partition key', case when c.relkind = 'p' then pg_catalog.pg_get_partkeydef(c.oid) end,
         'partition of', case when c.relispartition then
            (select h.inhparent::pg_catalog.regclass::text from pg_catalog.pg_inherits h where h.inhrelid = c.oid) end,
         'bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
         'unlogged', c.relpersistence = 'u',
         'row security', c.relrowsecurity,
         'forced row security', c.relforcerowsecurity,
         'replica identity', case when c.relkind in ('r', 'p') then c.relreplident end,
         'query', case when c.relkind in ('v', 'm') then pg_catalog.pg_get_viewdef(c.oid) end,
         'filled', case when c.relkind = 'm' then c.relispopulated end)
from relations c
where c.relkind not in ('S', 'c')
union all
select case when c.relkind = 'c' then 'attribute' else 'column' end,
       c.label || '.' || pg_catalog.quote_ident(a.attname), c.nspname, c.label,
       pg_catalog.jsonb_build_object(
         'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
         'not null', a.attnotnull,
         'default', case when v.generated = '' then pg_catalog.pg_get_expr(d.adbin, d.adrelid) end,
         'generated', case when v.generated <> '' then v.generated || ' ' || pg_catalog.pg_get_expr(d.adbin, d.adrelid) end,
         'identity', nullif(a.attidentity, ''),
         'collation', (select o.collname from pg_catalog.pg_collation o where o.oid = a.attcollation))
from relations c
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
cross join lateral (select (select g.generated from (select '' as attgenerated) as before12
           cross join lateral (
             select attgenerated::text as generated from pg_catalog.pg_attribute x
             where x.attrelid = a.attrelid and x.attnum = a.attnum) as g)) as v (generated)
left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relkind <> 'S'
union all
select case k.contype when 'p' then 'primary key' when 'u' then 'unique constraint' when 'f' then 'foreign key'
                      when 'x' then 'exclusion constraint' else 'check' end,
       pg_catalog.quote_ident(k.conname) || ' on ' || c.label, c.nspname, c.label,
       pg_catalog.jsonb_build_object(
         'definition', pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', ''),
         'valid', k.convalidated)
from relations c
join pg_catalog.pg_constraint k on k.conrelid = c.oid
where k.contype in ('p', 'u', 'f', 'x', 'c')
  -- Those of partitions that come with their table's have names that each server makes up.
  and coalesce((pg_catalog.to_jsonb(k) ->> 'conparentid')::oid, 0::oid) = 0::oid
union all
select 'index', pg_catalog.quote_ident(c.nspname) || '.' || pg_catalog.quote_ident(x.relname), c.nspname, c.label,
       pg_catalog.jsonb_build_object(
         'definition', pg_catalog.pg_get_indexdef(i.indexrelid), 'valid', i.indisvalid and i.indisready)
from relations c
join pg_catalog.pg_index i on i.indrelid = c.oid
join pg_catalog.pg_class x on x.oid = i.indexrelid
where not exists (select from pg_catalog.pg_inherits h where h.inhrelid = i.indexrelid)
  -- On the hidden column oid, which servers from 12 on do not have.
  and not -2 = any (i.indkey::int2[])
union all
select 'trigger', pg_catalog.quote_ident(t.tgname) || ' on ' || c.label, c.nspname, c.label,
       pg_catalog.jsonb_build_object('definition', pg_catalog.pg_get_triggerdef(t.oid), 'enabled', t.tgenabled)
from relations c
join pg_catalog.pg_trigger t on t.tgrelid = c.oid
join pg_catalog.pg_proc p on p.oid = t.tgfoid
join pg_catalog.pg_namespace n on n.oid = p.pronamespace
where not t.tgisinternal and n.nspname <> 'replicate'
  -- The trigger of a partition is there by that of its table; older versions say so in other ways.
  and not (c.relispartition and exists (
    select 1 from pg_catalog.pg_inherits h join pg_catalog.pg_trigger u on u.tgrelid = h.inhparent
    where h.inhrelid = c.oid and u.tgname = t.tgname and u.tgfoid = t.tgfoid))
union all
select 'rule', pg_catalog.quote_ident(r.rulename) || ' on ' || c.label, c.nspname, c.label,
       pg_catalog.jsonb_build_object('event', r.ev_type, 'instead', r.is_instead, 'enabled', r.ev_enabled)
from relations c
join pg_catalog.pg_rewrite r on r.ev_class = c.oid and r.rulename <> '_RETURN'
union all
select 'policy', pg_catalog.quote_ident(p.polname) || ' on ' || c.label, c.nspname, c.label,
       pg_catalog.jsonb_build_object(
         'command', p.polcmd, 'permissive', p.polpermissive,
         'using', pg_catalog.pg_get_expr(p.polqual, p.polrelid),
         'check', pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
from relations c
join pg_catalog.pg_policy p on p.polrelid = c.oid
union all
select 'sequence', c.label, c.nspname, c.label,
       pg_catalog.jsonb_build_object(
         'type', pg_catalog.format_type(q.seqtypid, null), 'start', q.seqstart::text,
         'increment', q.seqincrement::text, 'min', q.seqmin::text, 'max', q.seqmax::text, 'cycle', q.seqcycle,
         'cache', q.seqcache::text,
         'owned by', (
           select d.refobjid::pg_catalog.regclass::text || '.' || pg_catalog.quote_ident(a.attname)
           from pg_catalog.pg_depend d
           join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
           where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid
             and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')))
from relations c
join pg_catalog.pg_sequence q on q.seqrelid = c.oid
union all
select case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' else 'type' end,
       pg_catalog.quote_ident(s.nspname) || '.' || pg_catalog.quote_ident(t.typname), s.nspname, null,
       pg_catalog.jsonb_build_object(
         'labels', (select pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' order by l.enumsortorder)
                    from pg_catalog.pg_enum l where l.enumtypid = t.oid),
         'base type', case when t.typtype = 'd' then pg_catalog.format_type(t.typbasetype, t.typtypmod) end,
         'attributes', (select pg_catalog.string_agg(
                          pg_catalog.format('%I %s%s', a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
                            case when a.attcollation <> at.typcollation then ' collate ' || pg_catalog.quote_ident(co.collname) end),
                          ', ' order by a.attnum)
                        from pg_catalog.pg_attribute a
                        join pg_catalog.pg_type at on at.oid = a.atttypid
                        left join pg_catalog.pg_collation co on co.oid = a.attcollation
                        where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped),
         'range', (select pg_catalog.concat_ws(', ', 'subtype ' || pg_catalog.format_type(g.rngsubtype, null),
                            'operator class ' || o.opcname, 'collation ' || co.collname, 'canonical function ' || p.proname)
                   from pg_catalog.pg_range g
                   join pg_catalog.pg_opclass o on o.oid = g.rngsubopc
                   left join pg_catalog.pg_collation co on co.oid = g.rngcollation
                   left join pg_catalog.pg_proc p on p.oid = g.rngcanonical
                   where g.rngtypid = t.oid),
         'default', t.typdefault,
         'not null', t.typnotnull,
         'checks', (select pg_catalog.string_agg(pg_catalog.pg_get_constraintdef(k.oid), ', ' order by k.conname)
                    from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'c'))
from pg_catalog.pg_type t
join spaces s on s.oid = t.typnamespace
where (t.typtype in ('e', 'd', 'r')
       or t.typtype = 'c' and exists (select 1 from relations c where c.oid = t.typrelid and c.relkind = 'c'))
  and not exists (select 1 from members m
                  where m.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and m.objid = t.oid)
union all
select 'function', i.identity, s.nspname, null,
       pg_catalog.jsonb_build_object(
         'returns', pg_catalog.pg_get_function_result(p.oid), 'language', l.lanname, 'body', p.prosrc,
         'volatility', p.provolatile, 'strict', p.proisstrict, 'security definer', p.prosecdef,
         'settings', pg_catalog.array_to_string(p.proconfig, ', '))
from pg_catalog.pg_proc p
join spaces s on s.oid = p.pronamespace
join pg_catalog.pg_language l on l.oid = p.prolang
cross join lateral pg_catalog.pg_identify_object('pg_catalog.pg_proc'::pg_catalog.regclass, p.oid, 0) as i
where not exists (select 1 from members m
                  where m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and m.objid = p.oid)
  -- Those of ranges come with their types.
  and not exists (select 1 from pg_catalog.pg_depend d
                  where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid and d.deptype = 'i')
