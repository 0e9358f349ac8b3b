-- What: finds the rows that a statement fails for. Rows are numbered from 1 to `total` and tried `step` at a time; those
--       that fail are halved until single ones are left, each try in a subtransaction.
-- Runs on: target, in the transaction that writes the rows. `prepare`: statements that are run first, once; one that
--          fails for a row's data is passed over. `attempt`: statements for the rows from $1 to $2. Ends with `most`
--          rows found. `keeps`: the work on the rows that do not fail stays done. `refusals`: a pattern of SQLSTATEs that
--          are about a row; any other error ends the search. `passed`: those for which a row is passed over.
-- Returns: the numbers of the rows with what was said of each.
create or replace function pg_temp.find_refused(
  prepare text[], attempt text[], total bigint, step bigint, most integer, keeps boolean, refusals text, passed text[])
returns table (n bigint, code text, message text, detail text, broken text)
language plpgsql
as $function$
declare
  -- Where the next rows to be tried begin, and ranges of them that are still to be tried; the last one is the next.
  start bigint := 1;
  lows bigint[] := '{}';
  highs bigint[] := '{}';
  depth integer;
  low bigint;
  high bigint;
  middle bigint;
  statement text;
  state text;
  said text;
  more text;
  named text;
  numbers bigint[] := '{}';
  states text[] := '{}';
  messages text[] := '{}';
  details text[] := '{}';
  constraints text[] := '{}';
begin
  begin
    foreach statement in array prepare loop
      begin
        execute statement;
      exception when others then
        if sqlstate !~ refusals then
          raise;
        end if;
      end;
    end loop;
    while (start <= total or pg_catalog.cardinality(lows) > 0) and pg_catalog.cardinality(numbers) < most loop
      depth := pg_catalog.cardinality(lows);
      if depth = 0 then
        low := start;
        high := least(start + step - 1, total);
        start := high + 1;
      else
        low := lows[depth];
        high := highs[depth];
        lows := lows[1:depth - 1];
        highs := highs[1:depth - 1];
      end if;
      begin
        foreach statement in array attempt loop
          execute statement using low, high;
        end loop;
        set constraints all immediate;
      exception when others then
        if sqlstate !~ refusals then
          raise;
        end if;
        get stacked diagnostics
          state = returned_sqlstate, said = message_text, more = pg_exception_detail, named = constraint_name;
        if low < high then
          middle := (low + high) / 2;
          lows := lows || array[middle + 1, low];
          highs := highs || array[high, middle];
        elsif state <> all (passed) then
          numbers := numbers || low;
          states := states || state;
          messages := messages || said;
          details := details || more;
          constraints := constraints || named;
        end if;
      end;
    end loop;
    if not keeps then
      raise exception using errcode = 'RE007', message = 'rolled back on purpose';
    end if;
  exception when sqlstate 'RE007' then
    null;
  end;
  return query
    select * from rows from (
      pg_catalog.unnest(numbers), pg_catalog.unnest(states), pg_catalog.unnest(messages), pg_catalog.unnest(details),
      pg_catalog.unnest(constraints));
end
$function$;

-- `query` gives the key of the row $1, read as the types that it should have: null where it cannot be read so.
create or replace function pg_temp.read_key(query text, n bigint)
returns jsonb
language plpgsql
as $function$
declare
  key jsonb;
begin
  execute query into key using n;
  return key;
exception when data_exception or integrity_constraint_violation then
  return null;
end
$function$
