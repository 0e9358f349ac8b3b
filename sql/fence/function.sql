-- What: the function behind the triggers of a fence. Which sessions meet it is in the triggers' WHEN; whom of those it lets
--       pass is in its own condition: everybody while the fence is down, nobody while it stands. Replacing it takes no
--       lock on any table, so that all tables are fenced, or open again, at one moment.
-- Runs on: source, or target: the fenced side.
-- Returns: the row, for row triggers; ignored for the others. Raises SQLSTATE 25006.
create or replace function replicate.fence_{{id}}() returns trigger
language plpgsql
as $fence$
begin
  if {{passes}} then
    if TG_LEVEL = 'ROW' and TG_OP = 'DELETE' then
      return OLD;
    elsif TG_LEVEL = 'ROW' then
      return NEW;
    end if;
    return null;
  end if;
  raise exception using
    errcode = '25006',
    message = {{message}} || TG_TABLE_SCHEMA || '.' || TG_TABLE_NAME,
    hint = {{hint}};
end
$fence$;
revoke execute on function replicate.fence_{{id}}() from public;
