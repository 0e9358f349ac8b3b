-- What: the sessions that apply a two-way sync, whose changes capture leaves out.
-- Runs on: source and target, inside one transaction, at `init`, and where an older version has left its state.
-- Returns: nothing.

-- Nobody but the owner of this schema can write here, so that no application can pass for such a session: what it says by
-- the setting replicate.applying counts only in the backend that is named.
create table replicate.applying (
  token text primary key,
  pid integer not null
);

-- Target: what maintenance was refused last: {"message", "hint", "since"}; null while all of it is done.
alter table replicate.runner add column upkeep jsonb;
