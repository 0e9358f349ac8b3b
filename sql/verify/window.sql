-- What: begins to compare a part on the source, later than on the target: locks, takes the snapshot, and looks which
--       deltas the target does not have yet.
-- Runs on: source, as one script. The window is a condition on txid, see catalog/delta.ts.
-- Returns: snapshot; files (of the delta tables: another file means that one was emptied since); shape; partitions
--          (bounds by oid); hasPending (keys have changed); isTruncated (the table was emptied, or a key could
--          not be recorded).
begin isolation level repeatable read;
lock table {{table}}, {{delta_a}}, {{delta_b}} in access share mode;
with recursive tree (oid) as (
  select i.inhrelid from pg_catalog.pg_inherits i where i.inhparent = {{partitioned}}
  union all
  select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.oid
)
select pg_catalog.txid_current_snapshot()::text as "snapshot",
       pg_catalog.concat_ws(' ', pg_catalog.pg_relation_filenode('{{delta_a}}'),
                            pg_catalog.pg_relation_filenode('{{delta_b}}')) as "files",
       {{shape}} as "shape",
       (select coalesce(pg_catalog.jsonb_object_agg(c.oid::bigint::text, pg_catalog.pg_get_expr(c.relpartbound, c.oid)), '{}'::jsonb)
        from tree t join pg_catalog.pg_class c on c.oid = t.oid where c.relkind <> 'p') as "partitions",
       exists (select from {{delta_a}} where truncated is null and {{window}})
         or exists (select from {{delta_b}} where truncated is null and {{window}}) as "hasPending",
       exists (select from {{delta_a}} where truncated is not null and {{window}})
         or exists (select from {{delta_b}} where truncated is not null and {{window}}) as "isTruncated"
