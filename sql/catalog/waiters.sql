-- What: who waits for a lock that one of our sessions holds, or stands in line for. Waiters show in pg_locks to every role, unlike
--       the details of pg_stat_activity.
-- Runs on: source and target, several times a second while long statements run. $1: int[] of backend pids.
-- Returns: waiter, pid (ours).
select distinct w.pid as "waiter", b.pid as "pid"
from pg_catalog.pg_locks w
cross join lateral pg_catalog.unnest(pg_catalog.pg_blocking_pids(w.pid)) as b (pid)
where not w.granted and b.pid = any ($1::int[])
