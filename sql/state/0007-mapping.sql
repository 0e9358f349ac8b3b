-- What: what is remembered of tables that are mapped: filtered, with other columns, or shared with other syncs.
-- Runs on: source and target, inside one transaction, at `init`.
-- Returns: nothing.

-- What the rows on the target correspond to, {where, columns: {name: {to, as}}, discriminator: {column: value}}; null: the
-- rows as they are. Changed only where none are there yet, or together with the beginning of a new copy.
alter table replicate.sync_table add column mapping jsonb;
