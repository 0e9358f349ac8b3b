-- What: the function behind the triggers of a fence while it stands. Which sessions meet it is in the triggers' WHEN.
-- Runs on: source, or target: the fenced side, in the transaction that raises the fence.
-- Returns: never.
create or replace function replicate.fence_{{id}}() returns trigger
language plpgsql
as $fence$
begin
  raise exception using
    errcode = '25006',
    message = {{message}} || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME,
    hint = {{hint}};
end
$fence$;
revoke execute on function replicate.fence_{{id}}() from public;
