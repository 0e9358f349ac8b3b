-- What: one of the two delta tables of a capture. Only INSERT and TRUNCATE ever happen on it; no index, so that the
--       application pays for nothing but one appended row.
-- Runs on: source, when a table is captured.
-- Returns: nothing.
create table {{delta}} (
  {{columns}}txid bigint not null default pg_catalog.txid_current(),
  -- null: an ordinary change of the key. Oid of the table or partition: it was truncated. 0: the key could not be
  -- recorded, or there is none: the whole table has to be read again. 1: and at once.
  truncated oid
) with (autovacuum_enabled = true, toast.autovacuum_enabled = true);
-- A publication of all tables would refuse that a two-way sync deletes from it.
alter table {{delta}} replica identity full;
