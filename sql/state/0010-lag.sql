-- What: since when the target may lack something of the source, for the age of what waits.
-- Runs on: source and target, inside one transaction, at `init`.
-- Returns: nothing.

alter table replicate.runner
  -- The runner's last look at the source that left nothing to apply: one that found nothing, or the snapshot of a batch
  -- that is applied. Whatever waits was committed later. Null: there was none yet.
  add column clear_at timestamptz,
  drop column caught_up,
  drop column lag_rows,
  drop column lag_seconds;
