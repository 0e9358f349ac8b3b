-- What: the function behind the capture triggers of a table without a key. It notes that something has changed, which
--       means that the whole table has to be read again.
-- Runs on: source. Replaced at every rotation, to point at the other delta table.
-- Returns: null, which AFTER triggers ignore.
-- Harmless to the application for the same reasons as the row function. A plain table has triggers per statement, from
-- which statements that touch no row are told by their transition table; a table with partitions, parents or children
-- has one per row, because it is written to by statements that name its relatives.
create or replace function replicate.capture_{{id}}() returns trigger
language plpgsql security definer
as $capture$
begin
  if TG_LEVEL operator(pg_catalog.=) 'ROW' or TG_OP operator(pg_catalog.=) 'TRUNCATE' then
    insert into {{delta}} (truncated) values (0);
    return null;
  end if;
  begin
    if not exists (select from changed_rows) then
      return null;
    end if;
  exception when others then
    null;
  end;
  insert into {{delta}} (truncated) values (0);
  return null;
end
$capture$;
revoke execute on function replicate.capture_{{id}}() from public;
