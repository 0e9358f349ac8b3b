-- What: makes recorded keys that cannot be read any more, as a label of an enum that was renamed since, into notes that the
--       whole table has to be read again: for every sync that has not applied them.
-- Runs on: source, outside of a transaction. Holes: delta, the table; recorded, its key columns; read, the same as values
--          of the key's types; same, whether a row `d` has the recorded values of `r`; none, `column = null` for each column.
-- Returns: nothing. The setting replicate.mended tells how many rows there were.
do $mend$
declare
  r record;
  n bigint;
  total bigint := 0;
begin
  for r in select distinct {{recorded}} from {{delta}} where truncated is null loop
    begin
      perform {{read}};
    exception when data_exception or integrity_constraint_violation or undefined_object or undefined_function
        or cannot_coerce or datatype_mismatch then
      update {{delta}} as d set truncated = 0, {{none}} where d.truncated is null and {{same}};
      get diagnostics n = row_count;
      total := total + n;
    end;
  end loop;
  perform pg_catalog.set_config('replicate.mended', total::text, false);
end
$mend$
