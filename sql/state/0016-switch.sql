-- What: how a fence is raised, what keeps it from being lifted by mistake, and what is left to do after a switch.
-- Runs on: source and target, inside one transaction, at `init`.
-- Returns: nothing.

-- Transactions with an older id may go on writing for a moment after the fence was raised.
alter table replicate.fence add column raised_txid bigint;
-- Set just before the new side is opened, by whoever opens it: from here on only the state on the sync's target can tell
-- whether applications may write on this side. Until then a fence can be lifted without asking anybody.
alter table replicate.fence add column sealed_at timestamptz;
-- Those of an earlier version may belong to a side that was left.
update replicate.fence set sealed_at = fenced_at where lifted_at is null;

-- Target: how the constraint is validated while applications write to the table. Null: as in `validate`.
alter table replicate.owed add column validate_gently text;
