-- What: points of a cutover's retention that are moved on, table by table.
-- Runs on: source and target, inside one transaction, at `init`.
-- Returns: nothing.

-- Source: the position from which on the sync keeps the deltas of this capture; null: from the sync's own.
alter table replicate.subscription add column since text;
