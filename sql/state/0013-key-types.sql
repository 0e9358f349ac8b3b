-- What: the declared type of each captured key column, which the capture's function makes sure of.
-- Runs on: source and target, inside one transaction, at `init`, and where an older version has left its state.
-- Returns: nothing.
update replicate.capture as c
set key_columns = (
  select pg_catalog.jsonb_agg(k.value || pg_catalog.jsonb_build_object('typeOid', (
    select a.atttypid::bigint from pg_catalog.pg_attribute a
    where a.attrelid = c.relid and a.attnum = (k.value ->> 'attnum')::int)) order by k.ordinality)
  from pg_catalog.jsonb_array_elements(c.key_columns) with ordinality as k)
where c.key_columns <> '[]';
