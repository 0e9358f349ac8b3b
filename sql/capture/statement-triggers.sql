-- What: the statement triggers of a plain table: one per event, because a transition table serves one event only.
-- Runs on: source.
-- Returns: nothing.
create trigger zzz_replicate_capture_{{id}}_insert
  after insert on {{table}} referencing new table as changed_rows
  for each statement execute procedure replicate.capture_{{id}}();
create trigger zzz_replicate_capture_{{id}}_update
  after update on {{table}} referencing new table as changed_rows old table as old_rows
  for each statement execute procedure replicate.capture_{{id}}();
create trigger zzz_replicate_capture_{{id}}_delete
  after delete on {{table}} referencing old table as changed_rows
  for each statement execute procedure replicate.capture_{{id}}();
alter table {{table}} enable always trigger zzz_replicate_capture_{{id}}_insert;
alter table {{table}} enable always trigger zzz_replicate_capture_{{id}}_update;
alter table {{table}} enable always trigger zzz_replicate_capture_{{id}}_delete;
