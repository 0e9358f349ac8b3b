-- What: begins to compare a part on the target. The lock comes before the snapshot, because a TRUNCATE that commits
--       after a snapshot shows that snapshot an empty table; the query that reads the position takes the snapshot.
-- Runs on: target, as one script.
-- Returns: position and state of the table, whether it has a deferred reload and its size, its known partitions and fingerprint, its shape.
begin isolation level repeatable read;
lock table {{table}} in access share mode;
select s.position, t.state, t.fingerprint, t.reload_since is not null as "isReloadDeferred",
       t.reload_bytes::text as "reloadBytes", {{shape}} as "shape",
       (select coalesce(pg_catalog.jsonb_object_agg(p.key, p.value ->> 'bound'), '{}'::jsonb)
        from pg_catalog.jsonb_each(t.partitions) p
        where not coalesce((p.value ->> 'isGone')::boolean, false)) as "partitions"
from replicate.sync s
join replicate.sync_table t on t.sync = s.name
where s.name = {{sync}} and t.capture_id = {{capture}}
