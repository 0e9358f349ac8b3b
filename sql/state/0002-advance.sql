-- What: replicate.advance(): moves a sync's position forward, only from the position the caller read.
-- Runs on: target, in the transaction that applies a batch. It is the first statement there: the row lock makes a
--          second runner wait, and the comparison makes it fail.
-- Returns: nothing; raises SQLSTATE RE004 when the position or the token is not the expected one.
create function replicate.advance(
  sync_name text, expected_position text, expected_token text, next_position text, next_token text)
returns void
language plpgsql
as $function$
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
end
$function$;
