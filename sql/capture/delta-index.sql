-- What: an index on a delta table that has grown because a sync takes nothing: the others find with it what is new to
--       them. A BRIN index, because it costs the application's inserts next to nothing.
-- Runs on: source, outside of a transaction. Nobody who writes waits for it.
-- Returns: nothing.
create index concurrently {{index}} on {{delta}} using brin (txid) with (pages_per_range = 16)
