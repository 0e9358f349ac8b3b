-- What: what is remembered of tables without a key, which are read again as a whole when they have changed.
-- Runs on: source and target, inside one transaction, at `init`.
-- Returns: nothing.

alter table replicate.sync_table
  add column keyless boolean not null default false,
  -- The target does not have the table's changes since then, although the position covers them. Written in the
  -- transaction that moves the position over them, and taken back in the one that reloads the table.
  add column reload_since timestamptz,
  add column reload_bytes bigint,               -- size on the source when it was reloaded or put off
  add column reload_seconds double precision;   -- how long the last reload took
