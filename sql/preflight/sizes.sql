-- What: how much there is to copy, and how fast it changes.
-- Runs on: source. $1: oid[] of tables and partitions.
-- Returns: one row: tableBytes (with TOAST), indexBytes, largestIndexBytes; changes (rows written since the statistics
--          began) and seconds (since then, as far as the server can tell; since its start otherwise).
select coalesce(sum(pg_catalog.pg_table_size(c.oid)), 0)::float8 as "tableBytes",
       coalesce(sum(pg_catalog.pg_indexes_size(c.oid)), 0)::float8 as "indexBytes",
       coalesce((select max(pg_catalog.pg_relation_size(i.indexrelid)) from pg_catalog.pg_index i
                 where i.indrelid = any ($1::oid[])), 0)::float8 as "largestIndexBytes",
       coalesce(sum(s.n_tup_ins + s.n_tup_upd + s.n_tup_del), 0)::float8 as "changes",
       greatest(1, extract(epoch from pg_catalog.clock_timestamp() - coalesce(
         (select d.stats_reset from pg_catalog.pg_stat_database d where d.datname = pg_catalog.current_database()),
         pg_catalog.pg_postmaster_start_time())))::float8 as "seconds"
from pg_catalog.pg_class c
left join pg_catalog.pg_stat_user_tables s on s.relid = c.oid
where c.oid = any ($1::oid[])
