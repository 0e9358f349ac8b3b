-- What: the TRUNCATE trigger.
-- Runs on: source, on the table, and for a partitioned table on the root and on each leaf, because a leaf may be
--          truncated by itself.
-- Returns: nothing.
create trigger zzz_replicate_truncate_{{id}}
  after truncate on {{table}}
  for each statement execute procedure replicate.capture_{{id}}();
alter table only {{table}} enable always trigger zzz_replicate_truncate_{{id}};
