-- What: what a table is in full: its columns with all that ALTER TABLE can say of them, its constraints, indexes and comments.
--       For the changes of the source's tables that are made on the target too, see src/follow/schema.
-- Runs on: source and target. $1: oid[] of tables.
-- Returns: relid, definition: the fields of `TableDefinition` in src/catalog/table-definition.ts.
-- A column that an older version lacks is the one of its name outside of the subquery. Not through to_jsonb(), which would
--   call what a user has made of a missing value's type.
select c.oid::bigint::float8 as "relid",
       pg_catalog.jsonb_build_object(
         'schema', n.nspname,
         'name', c.relname,
         'kind', c.relkind,
         'comment', pg_catalog.obj_description(c.oid, 'pg_class'),
         'columns', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'attnum', a.attnum,
               'name', a.attname,
               'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
               'baseType', pg_catalog.format_type(a.atttypid, -1),
               'typeOid', a.atttypid::bigint,
               'isBuiltin', a.atttypid < 16384,
               'collation', case when a.attcollation <> 0 and a.attcollation <> t.typcollation then (
                 select pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname)
                 from pg_catalog.pg_collation co join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
                 where co.oid = a.attcollation) end,
               'notNull', a.attnotnull,
               'default', (
                 select pg_catalog.pg_get_expr(d.adbin, d.adrelid)
                 from pg_catalog.pg_attrdef d where d.adrelid = c.oid and d.adnum = a.attnum),
               'identity', a.attidentity,
               'generated', a.generated,
               'isInherited', not a.attislocal,
               'storage', case when a.attstorage <> t.typstorage then a.attstorage end,
               'statistics', nullif(a.attstattarget, -1),
               'compression', nullif(a.compression, ''),
               'comment', pg_catalog.col_description(c.oid, a.attnum),
               'sequence', (
                 select pg_catalog.jsonb_build_object(
                   'schema', sn.nspname, 'name', sc.relname, 'type', pg_catalog.format_type(s.seqtypid, null),
                   'start', s.seqstart::text, 'increment', s.seqincrement::text, 'min', s.seqmin::text,
                   'max', s.seqmax::text, 'cache', s.seqcache::text, 'cycle', s.seqcycle)
                 from pg_catalog.pg_depend d
                 join pg_catalog.pg_class sc on sc.oid = d.objid and sc.relkind = 'S'
                 join pg_catalog.pg_namespace sn on sn.oid = sc.relnamespace
                 join pg_catalog.pg_sequence s on s.seqrelid = sc.oid
                 where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype in ('a', 'i')
                   and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                   and d.refobjid = c.oid and d.refobjsubid = a.attnum
                 order by sc.oid limit 1)
             ) order by a.attnum), '[]'::jsonb)
           from (select '' as attgenerated, '' as attcompression) as before14
           cross join lateral (
             select x.attnum, x.attname, x.atttypid, x.atttypmod, x.attcollation, x.attnotnull, x.attidentity, x.attislocal,
                    x.attstorage, x.attstattarget, attgenerated::text as generated, attcompression::text as compression
             from pg_catalog.pg_attribute x
             where x.attrelid = c.oid and x.attnum > 0 and not x.attisdropped) as a
           join pg_catalog.pg_type t on t.oid = a.atttypid),
         'constraints', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'oid', o.oid::bigint,
               'name', o.conname,
               'type', o.contype,
               'definition', pg_catalog.pg_get_constraintdef(o.oid),
               'isValidated', o.convalidated,
               'isDeferrable', o.condeferrable,
               'isDeferred', o.condeferred,
               'isInherited', not o.conislocal,
               'comment', pg_catalog.obj_description(o.oid, 'pg_constraint'),
               'references', (
                 select pg_catalog.jsonb_build_object('schema', rn.nspname, 'name', r.relname)
                 from pg_catalog.pg_class r join pg_catalog.pg_namespace rn on rn.oid = r.relnamespace
                 where r.oid = o.confrelid)
             ) order by o.oid), '[]'::jsonb)
           from pg_catalog.pg_constraint o
           where o.conrelid = c.oid and o.contype in ('c', 'u', 'p', 'x', 'f')),
         'indexes', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
               'oid', i.indexrelid::bigint,
               'name', x.relname,
               'definition', pg_catalog.pg_get_indexdef(i.indexrelid),
               'isValid', i.indisvalid,
               'comment', pg_catalog.obj_description(i.indexrelid, 'pg_class')
             ) order by i.indexrelid), '[]'::jsonb)
           from pg_catalog.pg_index i
           join pg_catalog.pg_class x on x.oid = i.indexrelid
           where i.indrelid = c.oid and not exists (
             select 1 from pg_catalog.pg_constraint o
             where o.conrelid = c.oid and o.conindid = i.indexrelid and o.contype in ('p', 'u', 'x')))
       ) as "definition"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.oid = any ($1::oid[])
