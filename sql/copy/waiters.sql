-- What: which of our sessions hold a lock that somebody waits for.
-- Runs on: source, about once a second while parts are read. $1: int[] of backend pids.
-- Returns: pid.
select distinct b.pid as "pid"
from pg_catalog.pg_locks w
cross join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) as b (pid)
where not w.granted and b.pid = any ($1::int[])
