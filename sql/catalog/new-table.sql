-- What: statements that make what belongs to a table besides its columns: sequences, partitions, storage, checks, keys, indexes,
--       comments. Foreign keys: catalog/foreign-keys.
-- Runs on: source. $1: oid of the table; a partitioned one with its whole tree.
-- Returns: stage (10 sequence, 20 identity of a column, 30 partition, 40 column, 45 check, 50 key, 55 index, 60 mark, 70 owner of a
--          sequence, 80 comment), name (of the object, quoted and with its schema where it is a relation; of the column),
--          statement (the clause alone of an identity); in the order in which they can be run. Sequences come before the
--          table, what is after 20 comes after it.
-- Reads through to_jsonb() where a column does not exist on every version; not of pg_attribute, see catalog/tables.
with recursive
tree as (
  select c.oid, 0 as depth, null::oid as parent from pg_catalog.pg_class c where c.oid = $1::oid
  union all
  select i.inhrelid, t.depth + 1, t.oid
  from tree t
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
  join pg_catalog.pg_class c on c.oid = i.inhrelid and c.relispartition
),
member as (
  select t.oid, t.depth, t.parent, c.relkind, c.relpersistence, c.relreplident, c.relpartbound, c.reloptions, n.nspname, c.relname,
         pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as label
  from tree t
  join pg_catalog.pg_class c on c.oid = t.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
),
-- Of columns: owned, or given as a default.
used as (
  select distinct s.seqrelid as oid
  from pg_catalog.pg_sequence s
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = s.seqrelid
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0 and d.deptype = 'a'
  where d.refobjid in (select m.oid from member m)
  union
  select d.refobjid
  from pg_catalog.pg_attrdef f
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = f.oid
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  join pg_catalog.pg_sequence s on s.seqrelid = d.refobjid
  where f.adrelid in (select m.oid from member m)
    and not exists (
      select from pg_catalog.pg_depend o
      where o.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and o.objid = s.seqrelid and o.deptype = 'i')
),
sequence as (
  select c.oid, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as label, s.*
  from used u
  join pg_catalog.pg_sequence s on s.seqrelid = u.oid
  join pg_catalog.pg_class c on c.oid = u.oid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
),
-- Those that a partition has by its parent's come with it.
own_index as (
  select m.label as on_table, m.depth, i.indexrelid, i.indisclustered, i.indisreplident, x.relname,
         pg_catalog.quote_ident(m.nspname) || '.' || pg_catalog.quote_ident(x.relname) as label, k.oid as constraint_oid, k.conname
  from member m
  join pg_catalog.pg_index i on i.indrelid = m.oid
  join pg_catalog.pg_class x on x.oid = i.indexrelid
  left join pg_catalog.pg_constraint k on k.conindid = i.indexrelid and k.conrelid = m.oid and k.contype in ('p', 'u', 'x')
  where (i.indisvalid or m.relkind = 'p') and 0 <= all (i.indkey::int2[])
    and not exists (select from pg_catalog.pg_inherits h where h.inhrelid = i.indexrelid)
),
own_constraint as (
  select m.label as on_table, m.depth, k.oid, k.conname, k.contype, k.coninhcount
  from member m
  join pg_catalog.pg_constraint k on k.conrelid = m.oid
  where coalesce((pg_catalog.to_jsonb(k) ->> 'conparentid')::oid, 0::oid) = 0::oid
)
select s.stage as "stage", s.name as "name", s.statement as "statement"
from (
  select 10 as stage, 0 as depth, q.oid as id, q.label as name,
         'create sequence ' || q.label || ' as ' || pg_catalog.format_type(q.seqtypid, null)
           || ' increment by ' || q.seqincrement || ' minvalue ' || q.seqmin || ' maxvalue ' || q.seqmax
           || ' start with ' || q.seqstart || ' cache ' || q.seqcache || case when q.seqcycle then ' cycle' else '' end as statement
  from sequence q
  union all
  select 20, 0, c.oid, a.attname::text,
         'generated ' || case a.attidentity when 'a' then 'always' else 'by default' end || ' as identity (sequence name '
           || pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
           || ' increment by ' || q.seqincrement || ' minvalue ' || q.seqmin || ' maxvalue ' || q.seqmax
           || ' start with ' || q.seqstart || ' cache ' || q.seqcache || case when q.seqcycle then ' cycle' else '' end || ')'
  from pg_catalog.pg_attribute a
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum
    and d.deptype = 'i'
  join pg_catalog.pg_sequence q on q.seqrelid = d.objid
  join pg_catalog.pg_class c on c.oid = d.objid
  join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where a.attrelid = $1::oid and a.attidentity <> ''
  union all
  select 30, m.depth, m.oid, m.label,
         'create ' || case when m.relpersistence = 'u' then 'unlogged ' else '' end || 'table ' || m.label || ' partition of ' || p.label
           || ' ' || pg_catalog.pg_get_expr(m.relpartbound, m.oid)
           || case when m.relkind = 'p' then ' partition by ' || pg_catalog.pg_get_partkeydef(m.oid) else '' end
  from member m
  join member p on p.oid = m.parent
  union all
  -- A partition may have a default of its own.
  select 40, m.depth, m.oid, m.label,
         'alter table only ' || m.label || ' alter column ' || pg_catalog.quote_ident(a.attname) || ' '
           || coalesce('set default ' || pg_catalog.pg_get_expr(own.adbin, own.adrelid), 'drop default')
  from member m
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped and a.attidentity = ''
  join pg_catalog.pg_attribute pa on pa.attrelid = m.parent and pa.attname = a.attname
  left join pg_catalog.pg_attrdef own on own.adrelid = m.oid and own.adnum = a.attnum
  left join pg_catalog.pg_attrdef theirs on theirs.adrelid = m.parent and theirs.adnum = pa.attnum
  cross join lateral (select g.generated from (select '' as attgenerated) as before12
             cross join lateral (
               select attgenerated::text as generated from pg_catalog.pg_attribute x
               where x.attrelid = a.attrelid and x.attnum = a.attnum) as g) as v
  where v.generated = ''
    and pg_catalog.pg_get_expr(own.adbin, own.adrelid) is distinct from pg_catalog.pg_get_expr(theirs.adbin, theirs.adrelid)
  union all
  select 40, m.depth, m.oid, m.label,
         'alter table only ' || m.label || ' alter column ' || pg_catalog.quote_ident(a.attname) || ' set storage '
           || case a.attstorage when 'p' then 'plain' when 'e' then 'external' when 'm' then 'main' else 'extended' end
  from member m
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
  join pg_catalog.pg_type t on t.oid = a.atttypid and t.typstorage <> a.attstorage
  union all
  select 40, m.depth, m.oid, m.label,
         'alter table only ' || m.label || ' alter column ' || pg_catalog.quote_ident(a.attname) || ' set ('
           || pg_catalog.array_to_string(a.attoptions, ', ') || ')'
  from member m
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped and a.attoptions is not null
  union all
  select 40, m.depth, m.oid, m.label,
         'alter table only ' || m.label || ' alter column ' || pg_catalog.quote_ident(a.attname) || ' set statistics ' || a.attstattarget
  from member m
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped and a.attstattarget >= 0
  union all
  select 40, m.depth, m.oid, m.label,
         'alter table ' || m.label || ' set ('
           || (select pg_catalog.string_agg(pg_catalog.split_part(o, '=', 1) || ' = '
                        || pg_catalog.quote_literal(pg_catalog.substr(o, pg_catalog.strpos(o, '=') + 1)), ', ')
               from pg_catalog.unnest(m.reloptions) as o)
           || ')'
  from member m
  -- Made WITH OIDS, which servers from 12 on do not know.
  where pg_catalog.cardinality(pg_catalog.array_remove(m.reloptions, 'oids=true')) > 0
  union all
  select 45, k.depth, k.oid, k.conname::text,
         'alter table ' || k.on_table || ' add constraint ' || pg_catalog.quote_ident(k.conname) || ' ' || pg_catalog.pg_get_constraintdef(k.oid)
  from own_constraint k
  where k.contype = 'c' and k.coninhcount = 0
  union all
  select 50, i.depth, i.indexrelid, i.label,
         'alter table ' || i.on_table || ' add constraint ' || pg_catalog.quote_ident(i.conname) || ' ' || pg_catalog.pg_get_constraintdef(i.constraint_oid)
  from own_index i
  where i.constraint_oid is not null
  union all
  select 55, i.depth, i.indexrelid, i.label,
         -- Those of the partitions come with it, and are made by it here too.
         pg_catalog.regexp_replace(pg_catalog.pg_get_indexdef(i.indexrelid), '^(CREATE (?:UNIQUE )?INDEX (?:"(?:[^"]|"")+"|[^ "]+) ON )ONLY ', '\1')
  from own_index i
  where i.constraint_oid is null
  union all
  select 60, i.depth, i.indexrelid, i.label, 'alter table ' || i.on_table || ' cluster on ' || pg_catalog.quote_ident(i.relname)
  from own_index i
  where i.indisclustered
  union all
  select 60, i.depth, i.indexrelid, i.label, 'alter table only ' || i.on_table || ' replica identity using index ' || pg_catalog.quote_ident(i.relname)
  from own_index i
  where i.indisreplident
  union all
  select 60, m.depth, m.oid, m.label,
         'alter table only ' || m.label || ' replica identity ' || case m.relreplident when 'f' then 'full' else 'nothing' end
  from member m
  where m.relreplident in ('f', 'n')
  union all
  select 70, 0, q.oid, q.label, 'alter sequence ' || q.label || ' owned by ' || m.label || '.' || pg_catalog.quote_ident(a.attname)
  from sequence q
  join pg_catalog.pg_depend d on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = q.oid
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'a'
  join member m on m.oid = d.refobjid
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum = d.refobjsubid
  union all
  select 80, m.depth, m.oid, m.label, 'comment on table ' || m.label || ' is ' || pg_catalog.quote_literal(c.text)
  from member m
  cross join lateral (select pg_catalog.obj_description(m.oid, 'pg_class') as text) as c
  where c.text is not null
  union all
  select 80, m.depth, m.oid, m.label,
         'comment on column ' || m.label || '.' || pg_catalog.quote_ident(a.attname) || ' is ' || pg_catalog.quote_literal(d.description)
  from member m
  join pg_catalog.pg_description d on d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objoid = m.oid and d.objsubid > 0
  join pg_catalog.pg_attribute a on a.attrelid = m.oid and a.attnum = d.objsubid and not a.attisdropped
  union all
  select 80, i.depth, i.indexrelid, i.label, 'comment on index ' || i.label || ' is ' || pg_catalog.quote_literal(c.text)
  from own_index i
  cross join lateral (select pg_catalog.obj_description(i.indexrelid, 'pg_class') as text) as c
  where c.text is not null
  union all
  select 80, 0, q.oid, q.label, 'comment on sequence ' || q.label || ' is ' || pg_catalog.quote_literal(c.text)
  from sequence q
  cross join lateral (select pg_catalog.obj_description(q.oid, 'pg_class') as text) as c
  where c.text is not null
  union all
  select 80, k.depth, k.oid, k.conname::text,
         'comment on constraint ' || pg_catalog.quote_ident(k.conname) || ' on ' || k.on_table || ' is ' || pg_catalog.quote_literal(c.text)
  from own_constraint k
  cross join lateral (select pg_catalog.obj_description(k.oid, 'pg_constraint') as text) as c
  where c.text is not null and (k.contype in ('p', 'u', 'x') or k.contype = 'c' and k.coninhcount = 0)
) as s
order by s.stage, s.depth, s.id, s.statement
