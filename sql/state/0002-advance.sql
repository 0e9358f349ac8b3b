-- What: replicate.advance(): moves a sync's position forward, only from the position the caller read.
-- Runs on: target, in the transaction that applies a batch. It is the first statement there: the row lock makes a
--          second runner wait, and the comparison makes it fail.
-- Returns: nothing; raises SQLSTATE RE004 when the position or the token is not the expected one, and RE005 when one of
--          the batch's tables is being copied (again) meanwhile. The tables' rows stay locked until the batch ends.
create function replicate.advance(
  sync_name text, expected_position text, expected_token text, next_position text, next_token text,
  capture_ids integer[])
returns void
language plpgsql
as $function$
declare
  ready integer;
begin
  update replicate.sync
     set position = next_position,
         token = next_token,
         batches = batches + 1,
         last_batch_at = clock_timestamp()
   where name = sync_name
     and position is not distinct from expected_position
     and token = expected_token;
  if not found then
    raise exception using
      errcode = 'RE004',
      message = pg_catalog.format('the position of sync %s was moved by another runner', sync_name);
  end if;
  perform 1
     from replicate.sync_table t
    where t.sync = sync_name and t.capture_id = any (capture_ids) and t.state in ('copied', 'following')
    order by t.capture_id
      for no key update;
  get diagnostics ready = row_count;
  if ready <> pg_catalog.cardinality(capture_ids) then
    raise exception using
      errcode = 'RE005',
      message = pg_catalog.format('a table of sync %s is being copied', sync_name);
  end if;
end
$function$;
