-- What: the function behind the capture triggers of one table whose changes are captured row by row. It notes the key
--       in the active delta table; an update notes the old key too if it differs, by image, so that 1.0 -> 1.00
--       counts. TRUNCATE notes which relation was emptied.
-- Runs on: source. Replaced at every rotation, to point at the other delta table.
-- Returns: null, which AFTER triggers ignore.
--
-- The application must never fail or wait because of this function:
-- * SECURITY DEFINER: its roles need no rights here, and nothing may run with ours that a user can define. Every name,
--   operator and type is qualified, because no search_path is set (that would cost a fifth of the trigger's time); and
--   there is no cast, neither written nor implied: a key is recorded as its output function writes it, or, where that
--   depends on settings, as it is, once it is sure that the column still has the type that is recorded.
-- * The key is read in a block of its own: if a key column was renamed, dropped or retyped, the row is recorded without a
--   key, as a wish to read the whole table again. The block writes nothing, so it costs no subtransaction id.
-- * No look-up, no dynamic SQL, no lock but the delta table's own.
--
-- Where it tells, it also notes what was done and when, and leaves out what our own sessions apply (skip_applied).
create or replace function replicate.capture_{{id}}() returns trigger
language plpgsql security definer
as {{tag}}
declare
  {{variables}}
  is_moved boolean := false;
begin
  {{skip_applied}}
  if TG_OP operator(pg_catalog.=) 'TRUNCATE' then
    insert into {{delta}} (truncated{{when_column}}) values (TG_RELID{{when}});
    return null;
  end if;
  {{skip_noop}}
  begin
    if TG_OP operator(pg_catalog.=) 'DELETE' then
      {{check_old}}{{read_old_as_key}}
    else
      {{check_new}}{{read_new_as_key}}
      if TG_OP operator(pg_catalog.=) 'UPDATE' then
        is_moved := row({{old_plain}})::pg_catalog.record operator(pg_catalog.*<>) row({{new_plain}})::pg_catalog.record;
        if is_moved then
          {{read_old}}
        end if;
      end if;
    end if;
  exception when others then
    insert into {{delta}} (truncated) values (0);
    return null;
  end;
  insert into {{delta}} ({{columns}}) values ({{key_variables}}{{tell_new}});
  if is_moved then
    insert into {{delta}} ({{columns}}) values ({{old_variables}}{{tell_old}});
  end if;
  return null;
end
{{tag}};
revoke execute on function replicate.capture_{{id}}() from public;
