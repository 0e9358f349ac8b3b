-- What: how far the index builds of some sessions are.
-- Runs on: target, version 12 or later. $1: int[] of backend pids.
-- Returns: pid, phase, percent (of the phase; null where nothing is counted).
select p.pid as "pid", p.phase::text as "phase",
       case when p.blocks_total > 0 then 100.0 * p.blocks_done / p.blocks_total
            when p.tuples_total > 0 then 100.0 * p.tuples_done / p.tuples_total end::float8 as "percent"
from pg_catalog.pg_stat_progress_create_index p
where p.pid = any ($1::int[])
