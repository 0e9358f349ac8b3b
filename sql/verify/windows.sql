-- What: begins to compare the changes of some tables on the source, later than on the target: locks, takes the snapshot, and
--       counts.
-- Runs on: source, as one script. Holes: tables, to be locked, with their delta tables; wanted, their rows (id of the
--          capture, oid, qualified name); counts, a query for id, deltas, later, markers, laterMarkers (see
--          src/verify/changed-together.ts).
-- Returns: one row per table: the snapshot, its counts, its shape, whether it still has its name.
begin isolation level repeatable read;
lock table {{tables}} in access share mode;
select pg_catalog.txid_current_snapshot()::text as "snapshot", n.*, {{shape}} as "shape",
       w.relid is not distinct from pg_catalog.to_regclass(w.name)::oid as "isNamed"
from (values {{wanted}}) as w (id, relid, name)
join ({{counts}}) as n on n.id = w.id
