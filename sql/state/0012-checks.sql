-- What: lets the ledger of the target hold checks that are NOT VALID.
-- Runs on: source and target, inside one transaction, at `init`.
-- Returns: nothing.
alter table replicate.owed drop constraint owed_kind_check;
alter table replicate.owed add constraint owed_kind_check check (
  kind in ('key', 'index', 'attach', 'constraint', 'foreign-key', 'check', 'trigger', 'rule', 'analyze'));
