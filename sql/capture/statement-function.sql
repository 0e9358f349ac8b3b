-- What: the function behind the capture triggers of one plain table whose changes are captured statement by
--       statement, from transition tables: changed_rows holds the new rows, or the deleted ones; old_rows those
--       before an update. Old keys are recorded only where the update moved them, by image, as the row function does it.
-- Runs on: source. Replaced at every rotation, to point at the other delta table.
-- Returns: null.
-- Harmless to the application for the same reasons as the row function. The exception block costs one subtransaction
-- per statement. No trigger depends on a column, so ALTER and DROP COLUMN stay possible.
create or replace function replicate.capture_{{id}}() returns trigger
language plpgsql security definer
as {{tag}}
begin
  {{skip_applied}}
  if TG_OP operator(pg_catalog.=) 'TRUNCATE' then
    insert into {{delta}} (truncated{{when_column}}) values (TG_RELID{{when}});
    return null;
  end if;
  begin
    {{check}}insert into {{delta}} ({{columns}}) select {{changed_key}}{{tell_new}} from changed_rows as r;
    if TG_OP operator(pg_catalog.=) 'UPDATE' then
      insert into {{delta}} ({{columns}})
      select {{moved_key}}{{tell_old}} from (
        select {{key_images}} from old_rows as r
        except all
        select {{key_images}} from changed_rows as r
      ) as o;
    end if;
  exception when others then
    insert into {{delta}} (truncated) values (0);
  end;
  return null;
end
{{tag}};
revoke execute on function replicate.capture_{{id}}() from public;
