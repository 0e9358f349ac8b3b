-- What: what the rows of tables rest on. Where it is the same before a snapshot was taken and after rows were read in it, no
--       TRUNCATE, rewrite or other change of the table has come in between, although the table was not locked. Names and
--       files are always those of the moment, also in a transaction whose snapshot is older; the make is as the snapshot has it.
-- Runs on: source, before a batch's snapshot, after each of its reads while that one's locks are held, and after the batch.
--          $1: oid[] of tables. $2: text[] of their names, quoted and qualified.
-- Returns: relid, files (the table that has the name, and the file of each relation of its tree), make (who changed a column
--          or a partition last), leaves (how many partitions that hold rows).
with recursive wanted as (
  select u.oid, u.name from rows from (pg_catalog.unnest($1::oid[]), pg_catalog.unnest($2::text[])) as u (oid, name)
),
tree as (
  select w.oid as root, w.oid, ''::text as since
  from wanted w
  union all
  select t.root, i.inhrelid, i.xmin::text
  from tree t
  join pg_catalog.pg_class c on c.oid = t.oid and c.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select w.oid::bigint as "relid",
       coalesce(pg_catalog.to_regclass(w.name)::oid, 0::oid)::text || ' ' || (
         select pg_catalog.string_agg(
                  t.oid::text || ':' || coalesce(pg_catalog.pg_relation_filenode(t.oid), 0::oid)::text, ',' order by t.oid)
         from tree t where t.root = w.oid) as "files",
       (select pg_catalog.string_agg(a.attnum::text || ':' || a.xmin::text, ',' order by a.attnum)
        from pg_catalog.pg_attribute a where a.attrelid = w.oid and a.attnum > 0) || ' ' || (
         select pg_catalog.string_agg(t.oid::text || ':' || t.since, ',' order by t.oid)
         from tree t where t.root = w.oid) as "make",
       (select pg_catalog.count(*) from tree t join pg_catalog.pg_class c on c.oid = t.oid and c.relkind <> 'p'
        where t.root = w.oid) as "leaves"
from wanted w
