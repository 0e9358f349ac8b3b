-- What: what changes with every change of the name, columns and keys of a table: the transactions that wrote its rows in
--       the catalogue. Cheap to ask for again under a lock; not for partitioned tables, whose partitions count as well.
-- Runs on: source. $1: oid[] of tables.
-- Returns: relid, stamp. A partitioned table returns no row.
select c.oid::bigint::float8 as "relid",
       pg_catalog.concat_ws(' ', c.xmin,
         (select pg_catalog.string_agg(a.xmin::text, ',' order by a.attnum)
          from pg_catalog.pg_attribute a where a.attrelid = c.oid and a.attnum > 0),
         '/',
         (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', i.indexrelid, i.xmin, x.xmin), ',' order by i.indexrelid)
          from pg_catalog.pg_index i
          join pg_catalog.pg_class x on x.oid = i.indexrelid
          where i.indrelid = c.oid),
         '/',
         (select pg_catalog.string_agg(pg_catalog.concat_ws(' ', o.oid, o.xmin), ',' order by o.oid)
          from pg_catalog.pg_constraint o where o.conrelid = c.oid)) as "stamp"
from pg_catalog.pg_class c
where c.oid = any ($1::oid[]) and c.relkind <> 'p'
