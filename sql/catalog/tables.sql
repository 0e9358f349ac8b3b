-- What: describes tables: columns, the key that identifies a row, leaf partitions, sizes, storage.
-- Runs on: source and target. $1: oid[] of ordinary or partitioned tables.
-- Returns: the fields of `Table` in src/catalog/table.ts. columns and leaves are JSON arrays, key is JSON or null. Types
--          are written so that they can be used in a cast; `baseType` has domains resolved and no length or precision.
-- Reads through to_jsonb() where a column does not exist on every version; not of pg_attribute, as that would call a cast that a
-- user may have made for the type of a missing value: there, the column is the one of its name outside of the subquery.
with recursive
wanted as (
  select c.oid, c.relname, c.relnamespace, c.relkind, c.relowner, c.relpersistence, c.reltoastrelid, c.reltuples,
         c.relispartition, c.relrowsecurity, c.relhasrules
  from pg_catalog.pg_class c
  where c.oid = any ($1::oid[])
),
base_type as (
  select t.oid as type_oid, t.oid as oid, t.typtype, t.typbasetype, t.typtypmod as typmod, -1 as limit_of, 0 as depth
  from pg_catalog.pg_type t
  where t.oid in (select a.atttypid from pg_catalog.pg_attribute a join wanted w on w.oid = a.attrelid)
  union all
  select b.type_oid, t.oid, t.typtype, t.typbasetype, t.typtypmod, b.typmod, b.depth + 1
  from base_type b
  join pg_catalog.pg_type t on t.oid = b.typbasetype
  where b.typtype = 'd'
),
level as (
  select c.oid, pg_catalog.jsonb_build_object(
           'schema', n.nspname, 'name', c.relname, 'bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
           'key', case when c.relkind = 'p' then pg_catalog.pg_get_partkeydef(c.oid) end) as level
  from pg_catalog.pg_class c
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  -- pg_class has no index by which partitions are found: where none is asked for, it is not read.
  where c.relispartition and exists (select 1 from wanted w where w.relkind = 'p')
),
leaf as (
  select w.oid as root, i.inhrelid as oid, pg_catalog.jsonb_build_array(v.level) as path
  from wanted w
  join pg_catalog.pg_inherits i on i.inhparent = w.oid
  join level v on v.oid = i.inhrelid
  where w.relkind = 'p'
  union all
  select l.root, i.inhrelid, l.path || v.level
  from leaf l
  join pg_catalog.pg_inherits i on i.inhparent = l.oid
  join pg_catalog.pg_class c on c.oid = l.oid and c.relkind = 'p'
  join level v on v.oid = i.inhrelid
),
-- Read once: it has no index by what is referenced.
referenced as (
  select distinct f.confrelid as oid from pg_catalog.pg_constraint f where f.contype = 'f'
),
equality as (
  select oc.oid as opclass, 'operator(' || pg_catalog.quote_ident(n.nspname) || '.' || o.oprname || ')' as equals
  from pg_catalog.pg_opclass oc
  join pg_catalog.pg_amop am on am.amopfamily = oc.opcfamily and am.amopstrategy = 3
    and am.amoplefttype = oc.opcintype and am.amoprighttype = oc.opcintype
  join pg_catalog.pg_operator o on o.oid = am.amopopr
  join pg_catalog.pg_namespace n on n.oid = o.oprnamespace
),
-- Version 10: unique indexes of leaves, by the names of their columns.
leaf_index as (
  select l.root, l.oid as leaf, i.indexrelid as index, i.indisprimary as is_primary, not i.indimmediate as is_deferrable,
         pg_catalog.array_agg(a.attname::text order by a.attname) as names
  from leaf l
  join pg_catalog.pg_class c on c.oid = l.oid and c.relkind <> 'p'
  join pg_catalog.pg_index i on i.indrelid = l.oid
    and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null and 0 < all (i.indkey::int2[])
  cross join pg_catalog.unnest(i.indkey::int2[]) as k (attnum)
  join pg_catalog.pg_attribute a on a.attrelid = l.oid and a.attnum = k.attnum
  where pg_catalog.current_setting('server_version_num')::int < 110000
  group by l.root, l.oid, i.indexrelid, i.indisprimary, i.indimmediate
  having pg_catalog.bool_and(a.attnotnull)
),
-- What is unique in each leaf is unique in the whole if it holds the columns by which rows are told to leaves.
leaf_key as (
  select x.*
  from leaf_index x
  where not exists (
      select 1
      from leaf l
      join pg_catalog.pg_class c on c.oid = l.oid and c.relkind <> 'p'
      where l.root = x.root
        and not exists (select 1 from leaf_index y where y.root = x.root and y.leaf = l.oid and y.names = x.names))
    and not exists (
      select 1
      from pg_catalog.pg_partitioned_table p
      cross join pg_catalog.unnest(p.partattrs::int2[]) as k (attnum)
      left join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum
      where p.partrelid in (select x.root union all select l.oid from leaf l where l.root = x.root)
        and (k.attnum = 0 or a.attname::text <> all (x.names)))
)
select
  w.oid::bigint as "oid",
  n.nspname::text as "schema",
  w.relname::text as "name",
  w.relkind::text as "kind",
  pg_catalog.pg_get_userbyid(w.relowner)::text as "owner",
  pg_catalog.pg_has_role(w.relowner, 'USAGE') as "isOwned",
  coalesce(pg_catalog.pg_relation_filenode(w.oid), 0)::text as "file",
  w.relispartition as "isPartition",
  (select coalesce((pg_catalog.to_jsonb(c) ->> 'relhasoids')::boolean, false)
   from pg_catalog.pg_class c where c.oid = w.oid) as "hasOids",
  case when pg_catalog.current_setting('server_version_num')::int >= 160000 then 'octal'
       else pg_catalog.current_setting('server_encoding') end as "byteForm",
  case when w.relkind = 'p' then pg_catalog.pg_get_partkeydef(w.oid) end as "partitionKey",
  w.relpersistence::text as "persistence",
  w.relhasrules as "hasRules",
  w.oid in (select r.oid from referenced r)
    or exists (select 1 from leaf l where l.root = w.oid and l.oid in (select r.oid from referenced r)) as "isReferenced",
  w.relrowsecurity as "rowSecurity",
  pg_catalog.row_security_active(w.oid) as "rowSecurityActive",
  greatest(w.reltuples, 0)::float8 as "estimatedRows",
  case when w.relkind = 'r' then pg_catalog.pg_relation_size(w.oid) else 0 end::float8 as "heapBytes",
  case when w.relkind = 'r' and w.reltoastrelid <> 0
       then pg_catalog.pg_relation_size(w.reltoastrelid) else 0 end::float8 as "toastBytes",
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'attnum', a.attnum,
      'name', a.attname,
      'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
      'baseType', pg_catalog.format_type(b.oid, -1),
      'plainType', pg_catalog.format_type(b.oid, case when b.depth = 0 then a.atttypmod else b.limit_of end),
      'baseOid', b.oid::bigint,
      'typeOid', a.atttypid::bigint,
      'baseKind', bt.typtype,
      'isBuiltin', b.oid < 16384,
      'isDomain', b.depth > 0,
      'notNull', a.attnotnull,
      'hasDefault', a.atthasdef,
      'default', case when a.atthasdef then pg_catalog.pg_get_expr(ad.adbin, ad.adrelid) end,
      'identity', a.attidentity,
      'generated', (select g.generated from (select '' as attgenerated) as before12
           cross join lateral (
             select attgenerated::text as generated from pg_catalog.pg_attribute x
             where x.attrelid = a.attrelid and x.attnum = a.attnum) as g),
      'collation', case when a.attcollation <> 0 then
          pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) end
      ) order by a.attnum), '[]'::jsonb)
   from pg_catalog.pg_attribute a
   join base_type b on b.type_oid = a.atttypid and b.typtype <> 'd'
   join pg_catalog.pg_type bt on bt.oid = b.oid
   left join pg_catalog.pg_attrdef ad on ad.adrelid = a.attrelid and ad.adnum = a.attnum
   left join pg_catalog.pg_collation co on co.oid = a.attcollation
   left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
   where a.attrelid = w.oid and a.attnum > 0 and not a.attisdropped) as "columns",
  -- The primary key; without one, the replica identity's index; without that, the unique index with the fewest
  -- columns that are all NOT NULL. Never a partial, expression, invalid or period-based one.
  -- Before 11 a partitioned table has no indexes: what is a key of each leaf is its key, see leaf_key.
  coalesce((select pg_catalog.jsonb_build_object(
      'index', ic.relname,
      'isPrimary', i.indisprimary,
      'isDeferrable', not i.indimmediate,
      'columns', (
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'attnum', a.attnum,
          'name', a.attname,
          'equals', coalesce((
            select e.equals from equality e where e.opclass = i.indclass[k.position - 1]), 'operator(pg_catalog.=)')
        ) order by k.position)
        from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
        join pg_catalog.pg_attribute a on a.attrelid = w.oid and a.attnum = k.attnum
        -- Columns of INCLUDE come after those of the key.
        where k.position <= coalesce((pg_catalog.to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts)))
   from pg_catalog.pg_index i
   join pg_catalog.pg_class ic on ic.oid = i.indexrelid
   join pg_catalog.pg_am am on am.oid = ic.relam and am.amname = 'btree'
   where i.indrelid = w.oid
     and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
     -- Before 12, a table may have an index on its hidden column oid.
     and 0 < all (i.indkey::int2[])
     and not exists (
       select 1 from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k (attnum, position)
       join pg_catalog.pg_attribute a on a.attrelid = w.oid and a.attnum = k.attnum
       -- From 18 on a column may be NOT NULL for new rows alone.
       where (not a.attnotnull or exists (
           select 1 from pg_catalog.pg_constraint o
           where o.conrelid = w.oid and o.contype = 'n' and not o.convalidated and o.conkey[1] = a.attnum))
         and k.position <= coalesce((pg_catalog.to_jsonb(i) ->> 'indnkeyatts')::int, i.indnatts))
   order by i.indisprimary desc, i.indisreplident desc, i.indimmediate desc, i.indnatts, ic.relname
   limit 1),
  (select pg_catalog.jsonb_build_object(
      'index', ic.relname,
      'isPrimary', k.is_primary,
      'isDeferrable', k.is_deferrable,
      'columns', (
        select pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
          'attnum', ra.attnum,
          'name', ra.attname,
          'equals', coalesce(e.equals, 'operator(pg_catalog.=)')
        ) order by ik.position)
        from pg_catalog.pg_index i
        cross join pg_catalog.unnest(i.indkey::int2[]) with ordinality as ik (attnum, position)
        join pg_catalog.pg_attribute la on la.attrelid = i.indrelid and la.attnum = ik.attnum
        join pg_catalog.pg_attribute ra on ra.attrelid = w.oid and ra.attname = la.attname
        left join equality e on e.opclass = i.indclass[ik.position - 1]
        where i.indexrelid = k.index))
   from leaf_key k
   join pg_catalog.pg_class ic on ic.oid = k.index
   where k.root = w.oid
   order by k.is_primary desc, k.is_deferrable, pg_catalog.cardinality(k.names), k.index
   limit 1)) as "key",
  (select coalesce(pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
      'oid', c.oid::bigint,
      'schema', ln.nspname,
      'name', c.relname,
      'kind', c.relkind,
      'bound', pg_catalog.pg_get_expr(c.relpartbound, c.oid),
      'path', l.path,
      'file', coalesce(pg_catalog.pg_relation_filenode(c.oid), 0)::text,
      'rowSecurityActive', pg_catalog.row_security_active(c.oid),
      'heapBytes', case when c.relkind = 'r' then pg_catalog.pg_relation_size(c.oid) else 0 end,
      'toastBytes', case when c.relkind = 'r' and c.reltoastrelid <> 0
                         then pg_catalog.pg_relation_size(c.reltoastrelid) else 0 end
      ) order by c.oid), '[]'::jsonb)
   from leaf l
   join pg_catalog.pg_class c on c.oid = l.oid
   join pg_catalog.pg_namespace ln on ln.oid = c.relnamespace
   where l.root = w.oid and c.relkind <> 'p') as "leaves",
  pg_catalog.obj_description(w.oid, 'pg_class') as "comment"
from wanted w
join pg_catalog.pg_namespace n on n.oid = w.relnamespace
order by n.nspname, w.relname
