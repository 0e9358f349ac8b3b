-- What: which rows each leaf partition takes, as a text. Two leaves with the same text, also of two servers, take the same
--       rows; there is none where that cannot be proved: hash partitions (an enum hashes by its oid, text by its encoding),
--       keys that are expressions or of types that a user can define, ranges of text that does not sort by its bytes.
-- Runs on: source and target, in sessions whose settings are pinned, since bounds are printed. $1: oid[] of partitioned roots.
-- Returns: root, oid, schema, name, kind (relkind), membership (or null): for each level from the root on, its columns with
--          their types, and the bound; of a default partition also those of all its siblings. Text has its encoding with it,
--          because what is equal in one need not be so in another.
with recursive
tree (root, parent, oid) as (
  select i.inhparent, i.inhparent, i.inhrelid
  from pg_catalog.pg_inherits i
  where i.inhparent = any ($1::oid[])
  union all
  select t.root, i.inhparent, i.inhrelid
  from tree t
  join pg_catalog.pg_class c on c.oid = t.oid and c.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
),
member as (
  select t.root, t.parent, t.oid, c.relnamespace, c.relname, c.relkind,
         pg_catalog.pg_get_expr(c.relpartbound, c.oid) as bound
  from tree t
  join pg_catalog.pg_class c on c.oid = t.oid
),
column_type (parent, position, type_oid) as (
  select p.partrelid, k.position, a.atttypid
  from pg_catalog.pg_partitioned_table p
  cross join pg_catalog.unnest(p.partattrs::int2[]) with ordinality as k (attnum, position)
  join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum
  where p.partrelid in (select m.parent from member m)
  union all
  select t.parent, t.position, d.typbasetype
  from column_type t
  join pg_catalog.pg_type d on d.oid = t.type_oid and d.typtype = 'd'
),
level as (
  select p.partrelid as parent,
         case p.partstrat when 'l' then 'list ' when 'r' then 'range ' end
           -- An expression has no column, so that the count tells.
           || case when pg_catalog.count(w.told) = p.partnatts
                   then pg_catalog.string_agg(w.told, ', ' order by k.position) end as key
  from pg_catalog.pg_partitioned_table p
  cross join pg_catalog.unnest(p.partattrs::int2[]) with ordinality as k (attnum, position)
  left join pg_catalog.pg_attribute a on a.attrelid = p.partrelid and a.attnum = k.attnum
  left join column_type b on b.parent = p.partrelid and b.position = k.position
    and not exists (select 1 from pg_catalog.pg_type d where d.oid = b.type_oid and d.typtype = 'd')
  left join pg_catalog.pg_type t on t.oid = b.type_oid
  left join pg_catalog.pg_opclass o on o.oid = p.partclass[k.position - 1] and o.opcdefault
    and o.opcnamespace = 'pg_catalog'::pg_catalog.regnamespace
  left join pg_catalog.pg_collation c on c.oid = p.partcollation[k.position - 1]
  cross join lateral (
    select d.encoding,
           coalesce((pg_catalog.to_jsonb(c) ->> 'collisdeterministic')::boolean, true) as is_deterministic,
           case c.collprovider
             when 'c' then c.collcollate in ('C', 'POSIX')
             when 'b' then true
             when 'd' then case coalesce(pg_catalog.to_jsonb(d) ->> 'datlocprovider', 'c')
                             when 'c' then d.datcollate in ('C', 'POSIX') when 'b' then true else false end
             else false end as is_bytewise
    from pg_catalog.pg_database d
    where d.datname = pg_catalog.current_database()) as s
  cross join lateral (
    select case
      when o.oid is null then null
      when t.typtype = 'e' then case when p.partstrat = 'l' then pg_catalog.format('%I enum', a.attname) end
      when t.oid >= 16384 then null
      when t.typname in ('int2', 'int4', 'int8', 'numeric', 'oid', 'bool', 'date', 'time', 'timestamp', 'timestamptz', 'uuid',
                         'bytea', 'inet', 'cidr', 'macaddr', 'macaddr8', 'bit', 'varbit')
        then pg_catalog.format('%I %s', a.attname, t.typname)
      when t.typname in ('text', 'varchar', 'bpchar')
           and (p.partstrat = 'l' and s.is_deterministic or s.is_bytewise)
        then pg_catalog.format('%I %s %s', a.attname, t.typname, pg_catalog.pg_encoding_to_char(s.encoding))
      end as told) as w
  where p.partrelid in (select m.parent from member m)
  group by p.partrelid, p.partstrat, p.partnatts
),
bounded as (
  select m.root, m.parent, m.oid, m.relnamespace, m.relname, m.relkind,
         l.key || ' ' || m.bound || case when m.bound = 'DEFAULT' then coalesce(
           (select ' except ' || pg_catalog.string_agg(o.bound, '; ' order by o.bound collate "C")
            from member o where o.parent = m.parent and o.oid <> m.oid), '') else '' end as membership
  from member m
  join level l on l.parent = m.parent
),
path as (
  select b.root, b.oid, b.relnamespace, b.relname, b.relkind, b.membership
  from bounded b
  where b.parent = b.root
  union all
  select p.root, b.oid, b.relnamespace, b.relname, b.relkind, p.membership || ' / ' || b.membership
  from path p
  join bounded b on b.parent = p.oid and b.root = p.root
)
select p.root::bigint::float8 as "root", p.oid::bigint::float8 as "oid", n.nspname::text as "schema", p.relname::text as "name",
       p.relkind::text as "kind", p.membership as "membership"
from path p
join pg_catalog.pg_namespace n on n.oid = p.relnamespace
where p.relkind <> 'p'
order by p.root, p.oid
