-- What: foreign keys between tables, with all that is needed to look for rows without a parent.
-- Runs on: source. $1: oid[] of tables. Those that partitions have from their tables are left out.
-- Returns: name, relid, schema, table, kind (relkind of the table), parentSchema, parentTable, isFull (MATCH FULL), isPeriod, and for each column of the
--          key: columns, parentColumns, operators (parent's value on the left), qualified.
select k.conname::text as "name", c.oid::bigint::float8 as "relid",
       n.nspname::text as "schema", c.relname::text as "table", c.relkind::text as "kind",
       pn.nspname::text as "parentSchema", p.relname::text as "parentTable", p.relkind::text as "parentKind",
       k.confmatchtype = 'f' as "isFull",
       coalesce((pg_catalog.to_jsonb(k) ->> 'conperiod')::boolean, false) as "isPeriod",
       array(select a.attname::text from pg_catalog.unnest(k.conkey) with ordinality as x (attnum, n)
             join pg_catalog.pg_attribute a on a.attrelid = k.conrelid and a.attnum = x.attnum order by x.n) as "columns",
       array(select a.attname::text from pg_catalog.unnest(k.confkey) with ordinality as x (attnum, n)
             join pg_catalog.pg_attribute a on a.attrelid = k.confrelid and a.attnum = x.attnum order by x.n) as "parentColumns",
       array(select 'operator(' || pg_catalog.quote_ident(s.nspname) || '.' || o.oprname || ')'
             from pg_catalog.unnest(k.conpfeqop) with ordinality as x (oid, n)
             join pg_catalog.pg_operator o on o.oid = x.oid
             join pg_catalog.pg_namespace s on s.oid = o.oprnamespace order by x.n) as "operators"
from pg_catalog.pg_constraint k
join pg_catalog.pg_class c on c.oid = k.conrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class p on p.oid = k.confrelid
join pg_catalog.pg_namespace pn on pn.oid = p.relnamespace
where k.contype = 'f' and k.conrelid = any ($1::oid[])
  and coalesce((pg_catalog.to_jsonb(k) ->> 'conparentid')::oid, 0::oid) = 0::oid
order by 2, 3, 1
