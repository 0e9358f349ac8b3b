-- What: what a source remembers of the syncs that read from it: which of them has fallen silent, and which was given up.
-- Runs on: source and target, inside one transaction, at `init`, or when a sync of an earlier version is followed.
-- Returns: nothing.

-- When the sync's runner said last how far it is; null: never.
alter table replicate.source_sync add column acknowledged_at timestamptz;

-- Syncs that were given up while their target was away, by the token that the target remembers: the deltas that it lacks
-- may have been thrown away since.
create table replicate.expelled (
  token text primary key,
  previous_token text not null,
  sync text not null,
  expelled_at timestamptz not null default now()
);
