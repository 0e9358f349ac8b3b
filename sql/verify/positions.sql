-- What: begins to compare the changes of some tables on the target, as verify/position does with a part of one.
-- Runs on: target, as one script. Holes: tables, to be locked; wanted, their rows (id of the capture, oid, qualified name).
-- Returns: one row per table: id, position of the sync, whether the table follows and owes no reload, its shape, whether it
--          still has its name, an estimate of its rows.
begin isolation level repeatable read;
lock table {{tables}} in access share mode;
select w.id, s.position,
       t.state = 'following' and pg_catalog.to_jsonb(t) ->> 'reload_since' is null as "isSettled",
       {{shape}} as "shape",
       w.relid is not distinct from pg_catalog.to_regclass(w.name)::oid as "isNamed",
       (select coalesce(pg_catalog.sum(greatest(c.reltuples, 0)), 0)::float8 from pg_catalog.pg_class c
        where c.oid = w.relid or c.oid in (select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = w.relid)) as "estimate"
from (values {{wanted}}) as w (id, relid, name)
join replicate.sync_table t on t.capture_id = w.id
join replicate.sync s on s.name = t.sync
where s.name = {{sync}}
