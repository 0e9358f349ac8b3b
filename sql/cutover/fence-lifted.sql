-- What: the same function once the fence is lifted. Replacing it takes no lock on any table, so that writes go on at
--       once, whoever reads the tables; the triggers are dropped afterwards, when each table's readers let us.
-- Runs on: source, or target: the fenced side.
-- Returns: the row, for row triggers; ignored for the others.
create or replace function replicate.fence_{{id}}() returns trigger
language plpgsql
as $fence$
begin
  if TG_LEVEL = 'ROW' and TG_OP = 'DELETE' then
    return OLD;
  elsif TG_LEVEL = 'ROW' then
    return NEW;
  end if;
  return null;
end
$fence$;
