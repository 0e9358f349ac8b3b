-- What: how many locks a server has room for, and how many relations a transaction locks that writes to all of these tables.
-- Runs on: source and target. $1: oid[] of tables and their partitions.
-- Returns: perTransaction (max_locks_per_transaction), sessions (that it counts for), capacity, indexes.
select s.locks as "perTransaction", s.sessions, s.locks * s.sessions as "capacity",
       (select pg_catalog.count(*) from pg_catalog.pg_index i where i.indrelid = any ($1::oid[]))::int as "indexes"
from (select pg_catalog.current_setting('max_locks_per_transaction')::int as locks,
             pg_catalog.current_setting('max_connections')::int
               + pg_catalog.current_setting('max_prepared_transactions')::int as sessions) as s
