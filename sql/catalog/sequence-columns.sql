-- What: the columns that own a sequence or take their default from it.
-- Runs on: source and target. $1: oids of sequences.
-- Returns: sequence, schema, table, column, type (of the column, domains resolved), isIndexed (an index can tell its
--          greatest value at once).
select o.sequence::bigint::float8 as "sequence",
       n.nspname::text as "schema",
       c.relname::text as "table",
       a.attname::text as "column",
       pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), null) as "type",
       exists (
         select 1
         from pg_catalog.pg_index i
         join pg_catalog.pg_class x on x.oid = i.indexrelid
         join pg_catalog.pg_am m on m.oid = x.relam and m.amname = 'btree'
         where i.indrelid = c.oid and i.indkey[0] = a.attnum and i.indisvalid and i.indpred is null
       ) as "isIndexed"
from (
  select d.objid as sequence, d.refobjid as relid, d.refobjsubid as attnum
  from pg_catalog.pg_depend d
  where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objsubid = 0
    and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
  union
  select u.refobjid, f.adrelid, f.adnum
  from pg_catalog.pg_depend u
  join pg_catalog.pg_attrdef f on f.oid = u.objid
  where u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
    and u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
) o
join pg_catalog.pg_class c on c.oid = o.relid and c.relkind in ('r', 'p')
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = o.relid and a.attnum = o.attnum
join pg_catalog.pg_type t on t.oid = a.atttypid
where o.sequence = any ($1::oid[])
order by 1, 2, 3, 4
