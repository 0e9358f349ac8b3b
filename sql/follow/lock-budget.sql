-- What: how many locks the server has room for now, of whatever database, and how many a batch takes that writes to all of
--       these tables: theirs, those of their indexes, and those of TOAST tables that hold something.
-- Runs on: target. $1: oid[] of tables and their partitions.
-- Returns: perTransaction (max_locks_per_transaction), sessions (that are set for applications), capacity (with those of the
--          server's own processes), held (by all sessions), needed.
select s.per_transaction as "perTransaction",
       s.sessions,
       s.per_transaction * (s.sessions + s.own) as "capacity",
       (select pg_catalog.count(*) from pg_catalog.pg_locks l where not l.fastpath)::int as "held",
       (pg_catalog.cardinality($1::oid[])
         + (select pg_catalog.count(*) from pg_catalog.pg_index i where i.indrelid = any ($1::oid[]))
         + (select 2 * pg_catalog.count(*)
            from pg_catalog.pg_class c
            join pg_catalog.pg_class t on t.oid = c.reltoastrelid and t.relpages > 0
            where c.oid = any ($1::oid[])))::int as "needed"
from (select pg_catalog.current_setting('max_locks_per_transaction')::int as per_transaction,
             pg_catalog.current_setting('max_connections')::int
               + pg_catalog.current_setting('max_prepared_transactions')::int as sessions,
             -- From 18 on there is room for more workers than run; before 12 walsenders are ordinary sessions.
             coalesce(pg_catalog.current_setting('autovacuum_worker_slots', true),
                      pg_catalog.current_setting('autovacuum_max_workers'))::int
               + 1
               + pg_catalog.current_setting('max_worker_processes')::int
               + case when pg_catalog.current_setting('server_version_num')::int < 120000 then 0
                      else pg_catalog.current_setting('max_wal_senders')::int end as own) as s
