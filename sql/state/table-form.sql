-- What: what a table lets in: its columns, constraints, unique indexes, partitions, and the labels of its enums.
-- Runs on: target. Hole: relid, an expression.
-- Returns: a text that changes when one of them does; a part of a statement.
(select pg_catalog.concat_ws('.',
  (select pg_catalog.hashtext(pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', a.attname, a.atttypid, a.atttypmod, a.attnotnull), ',' order by a.attnum))
   from pg_catalog.pg_attribute a
   where a.attrelid = {{relid}} and a.attnum > 0 and not a.attisdropped),
  (select pg_catalog.hashtext(pg_catalog.string_agg(
            pg_catalog.concat_ws(' ', c.conname, pg_catalog.pg_get_constraintdef(c.oid), c.convalidated), ','
            order by c.conname, c.oid))
   from pg_catalog.pg_constraint c
   where c.conrelid = {{relid}}
      or c.contypid in (select a.atttypid from pg_catalog.pg_attribute a where a.attrelid = {{relid}})),
  (select pg_catalog.hashtext(pg_catalog.string_agg(i.indexrelid::text, ',' order by i.indexrelid))
   from pg_catalog.pg_index i where i.indrelid = {{relid}} and i.indisunique),
  (select pg_catalog.hashtext(pg_catalog.string_agg(h.inhrelid::text, ',' order by h.inhrelid))
   from pg_catalog.pg_inherits h where h.inhparent = {{relid}}),
  (select pg_catalog.hashtext(pg_catalog.string_agg(e.enumlabel, ',' order by e.enumtypid, e.enumsortorder))
   from pg_catalog.pg_enum e
   where e.enumtypid in (
     select pg_catalog.unnest(array[t.oid, t.typelem, t.typbasetype])
     from pg_catalog.pg_attribute a join pg_catalog.pg_type t on t.oid = a.atttypid
     where a.attrelid = {{relid}} and a.attnum > 0))))
