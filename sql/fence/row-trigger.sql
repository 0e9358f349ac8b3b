-- What: a fence's trigger for rows that come without a statement on the table itself (see fence-relations).
-- Runs on: source, or target: the side to be fenced, under a lock on the table.
-- Returns: nothing.
create trigger aaa_replicate_fence_{{id}}_rows
  before insert or update or delete on {{table}}
  for each row when ({{is_stranger}}) execute procedure replicate.fence_{{id}}();
alter table only {{table}} enable always trigger aaa_replicate_fence_{{id}}_rows;
