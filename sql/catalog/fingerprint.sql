-- What: what has to stay the same between two batches of a table: its columns, its unique keys, its capture triggers, and
--       what tells whether rows were rewritten that nobody has written to (see src/follow/read/old-rows.ts).
-- Runs on: source, inside the batch's snapshot after the tables are locked; target, for the same table there. $1: oid[].
-- Returns: relid, schema, name, fingerprint. A table that is gone returns no row. The triggers' xmin is part of it:
--          a trigger that was disabled and enabled again in between may have missed changes.
-- touched: of a table that is captured per statement, by column number: the transaction that wrote its row in pg_attribute.
--   It may have been a parent, or a partitioned table, whose statements wrote to it: only that it came and went is left.
-- rows.versions: the transactions that wrote the columns' rows in pg_attribute. Every ALTER TABLE that may give rows other
--   values writes some of them, those of a partitioned table on its root as well; VACUUM FULL, CLUSTER, TRUNCATE, another
--   tablespace or access method, and what swaps files as pg_repack does, write none (but where a column's missing values
--   go into the rows).
-- rows.files: of the relations that hold rows, from the same snapshot as the versions, which pg_relation_filenode() is not.
-- rows.links: before 13, when a partition was attached: its triggers stay when it is detached, and tell nothing.
-- definition: changes with whatever catalog/definition tells that none of the others does: defaults, constraints, indexes, comments.
-- rows.types: labels of enums and attributes of composites that the columns are of, at any depth: they change what rows
--   say without a trace in the table.
-- A column that an older version lacks is the one of its name outside of the subquery. Not through to_jsonb(), which would
--   call what a user has made of a missing value's type.
with recursive wanted as (
  select c.oid, c.relkind, c.relfilenode, c.relname, c.relnamespace
  from pg_catalog.pg_class c
  where c.oid = any ($1::oid[])
),
tree as (
  select w.oid as root, i.inhrelid as oid, i.xmin as link
  from wanted w
  join pg_catalog.pg_inherits i on i.inhparent = w.oid
  where w.relkind = 'p'
  union all
  select t.root, i.inhrelid, i.xmin
  from tree t
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
),
used as (
  select a.attrelid as relid, a.atttypid as type
  from pg_catalog.pg_attribute a
  where a.attrelid = any ($1::oid[]) and a.attnum > 0 and not a.attisdropped and a.atttypid >= 16384
  union
  select u.relid, x.type
  from used u
  join pg_catalog.pg_type t on t.oid = u.type
  cross join lateral (
    select t.typbasetype
    union all
    select t.typelem where t.typlen = -1
    union all
    select a.atttypid from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
    union all
    select r.rngsubtype from pg_catalog.pg_range r
    where t.typtype in ('r', 'm')
      and (r.rngtypid = t.oid or (pg_catalog.to_jsonb(r) ->> 'rngmultitypid')::oid = t.oid)
  ) as x (type)
  where x.type >= 16384
)
select c.oid::bigint as "relid",
       n.nspname::text as "schema",
       c.relname::text as "name",
       pg_catalog.jsonb_build_object(
         'columns', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
               a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, a.attcollation::bigint,
               a.generated) order by a.attnum), '[]'::jsonb)
           from (select '' as attgenerated) as before12
           cross join lateral (
             select x.attnum, x.attname, x.atttypid, x.atttypmod, x.attcollation, attgenerated::text as generated
             from pg_catalog.pg_attribute x
             where x.attrelid = c.oid and x.attnum > 0 and not x.attisdropped) as a),
         'keys', (
           select coalesce(pg_catalog.jsonb_agg(distinct i.indkey::text), '[]'::jsonb)
           from pg_catalog.pg_index i
           where i.indrelid = c.oid and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null),
         'triggers', (
           select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(
               t.name, t.enabled, t.version) order by t.name collate "C"), '[]'::jsonb)
           from (
             select t.tgname::text as name, t.tgenabled::text as enabled, t.xmin::text as version
             from pg_catalog.pg_trigger t
             where t.tgrelid = c.oid and t.tgname like 'zzz\_replicate\_%'
             union all
             -- In the place of a trigger that does not see all: P, where statements on a parent, or what a subscription
             -- applies, pass by the triggers per statement.
             select 'zzz_replicate_past', 'P', ''
             where exists (
                 select 1 from pg_catalog.pg_trigger t
                 where t.tgrelid = c.oid and t.tgname ~ '^zzz_replicate_capture_\d+_insert$')
               and (exists (select 1 from pg_catalog.pg_inherits i where i.inhrelid = c.oid)
                 or exists (select 1 from pg_catalog.pg_subscription_rel s where s.srrelid = c.oid))
           ) as t),
         'touched', case when exists (
             select 1 from pg_catalog.pg_trigger t
             where t.tgrelid = c.oid and t.tgname ~ '^zzz_replicate_capture_\d+_insert$')
           then (
             select pg_catalog.jsonb_object_agg(a.attnum::text, a.xmin::text)
             from pg_catalog.pg_attribute a
             where a.attrelid = c.oid and a.attnum > 0) end,
         'definition', pg_catalog.concat_ws('/',
           (select pg_catalog.string_agg(d.adnum || ' ' || d.xmin::text, ',' order by d.adnum)
            from pg_catalog.pg_attrdef d where d.adrelid = c.oid),
           (select pg_catalog.string_agg(o.oid || ' ' || o.xmin::text, ',' order by o.oid)
            from pg_catalog.pg_constraint o where o.conrelid = c.oid),
           (select pg_catalog.string_agg(i.indexrelid || ' ' || i.xmin::text || ' ' || x.xmin::text, ',' order by i.indexrelid)
            from pg_catalog.pg_index i join pg_catalog.pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid),
           (select pg_catalog.string_agg(m.objsubid || ' ' || m.xmin::text, ',' order by m.objsubid)
            from pg_catalog.pg_description m
            where m.objoid = c.oid and m.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass)),
         'rows', pg_catalog.jsonb_build_object(
           'versions', (
             select coalesce(pg_catalog.string_agg(v.xmin, ' ' order by v.xmin), '')
             from (select distinct a.xmin::text collate "C" as xmin
                   from pg_catalog.pg_attribute a
                   where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as v),
           'files', case
             when c.relkind <> 'p' then pg_catalog.jsonb_build_object(c.oid::text, c.relfilenode::text)
             else (
               select coalesce(pg_catalog.jsonb_object_agg(l.oid::text, l.relfilenode::text), '{}'::jsonb)
               from tree t
               join pg_catalog.pg_class l on l.oid = t.oid and l.relkind <> 'p'
               where t.root = c.oid) end,
           'links', (
             select coalesce(pg_catalog.jsonb_object_agg(t.oid::text, t.link::text), '{}'::jsonb)
             from tree t
             where t.root = c.oid and pg_catalog.current_setting('server_version_num')::int < 130000),
           'types', (
             select coalesce(pg_catalog.jsonb_object_agg(u.type::text, case
                 when t.typtype = 'e' then (
                   select pg_catalog.jsonb_object_agg(e.oid::text, e.enumlabel)
                   from pg_catalog.pg_enum e where e.enumtypid = t.oid)
                 else (
                   select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attnum, a.atttypid::bigint, a.attname) order by a.attnum)
                   from pg_catalog.pg_attribute a
                   where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped) end), '{}'::jsonb)
             from used u
             join pg_catalog.pg_type t on t.oid = u.type and t.typtype in ('c', 'e')
             where u.relid = c.oid))
       )::text as "fingerprint"
from wanted c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
