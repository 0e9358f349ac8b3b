-- What: ends sessions that another process has left behind which was switching the same sync.
-- Runs on: source and target. $1: pattern of the tags of such sessions, see src/state/switch-lock.ts. $2: our own tag.
-- Returns: pid, of each that is there still.
select a.pid as "pid", pg_catalog.pg_terminate_backend(a.pid) as "isEnded"
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
  and a.pid <> pg_catalog.pg_backend_pid()
  and a.application_name like 'replicate %'
  and a.application_name ~ $1
  and pg_catalog.strpos(a.application_name, $2) = 0
