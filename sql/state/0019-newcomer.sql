-- What: tables of the source that were created after `init`: how far they have come on their way into the sync, and why one
--       is not taken in.
-- Runs on: source and target, inside one transaction, at `init`, or when a sync of an earlier version is followed.
-- Returns: nothing.

-- Target: a row from when the table is found until it follows, or is gone.
create table replicate.newcomer (
  sync text not null references replicate.sync on delete cascade,
  source_relid oid not null,
  -- The table here that was created for it; null: none, or one that was there.
  target_relid oid,
  -- Why it is not taken in; null: it is on its way.
  reason text,
  found_at timestamptz not null default pg_catalog.clock_timestamp(),
  primary key (sync, source_relid)
);
