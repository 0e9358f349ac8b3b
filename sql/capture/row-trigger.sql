-- What: the row trigger. AFTER, so that it sees what BEFORE triggers made of the row; ALWAYS, so that writers under
--       session_replication_role = replica (a subscription, another replication system) are captured too. Its name is
--       its capture's own: a captured table may become a partition of another, and gets that one's trigger as well.
-- Runs on: source, on the table or the partitioned root; before version 11 on each leaf.
-- Returns: nothing.
create trigger zzz_replicate_capture_{{id}}
  after insert or update or delete on {{table}}
  for each row execute procedure replicate.capture_{{id}}();
alter table {{table}} enable always trigger zzz_replicate_capture_{{id}};
