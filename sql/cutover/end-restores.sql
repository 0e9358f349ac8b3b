-- What: ends sessions of ours that restore constraints of a sync's tables and were cut off: the server goes on with a
--       statement whose client is gone.
-- Runs on: target. $1: sync.
-- Returns: pid, of each.
select a.pid as "pid", pg_catalog.pg_terminate_backend(a.pid) as "isEnded"
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
  and a.usename = current_user
  and a.application_name ~ '^replicate restore( #|$)'
  and a.pid <> pg_catalog.pg_backend_pid()
  and exists (
    select from pg_catalog.pg_locks l
    join replicate.sync_table t on t.target_relid = l.relation and t.sync = $1
    where l.pid = a.pid and l.locktype = 'relation')
