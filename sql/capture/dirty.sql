-- What: the captures of a sync whose delta tables hold anything: looks at file sizes only, so that it costs
--       microseconds per table, and nothing at all when no transaction has ended since the last look.
-- Runs on: source. $1: sync. $2: captures to leave out (their tables are being copied). $3: the snapshot of the last
--          look, or null. Sizes are physical: whatever a snapshot taken before this query sees is in them.
-- Returns: id, a, b (bytes of the two delta tables), active.
select c.id, pg_catalog.pg_relation_size(c.delta_a) as a, pg_catalog.pg_relation_size(c.delta_b) as b, c.active
from replicate.subscription s
join replicate.capture c on c.id = s.capture_id
where s.sync = $1
  and s.capture_id <> all ($2::int[])
  and $3 is distinct from pg_catalog.txid_current_snapshot()::text
  and (pg_catalog.pg_relation_size(c.delta_a) > 0 or pg_catalog.pg_relation_size(c.delta_b) > 0)
