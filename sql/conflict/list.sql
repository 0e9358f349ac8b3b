-- What: logged conflicts of a sync, the latest first.
-- Runs on: source, target.
-- Parameters: $1 sync; $2 tables, $3 kinds (null: all); $4 true: resolved ones, false: the others, null: both;
--   $5 the earliest, $6 how many at most (null: all).
-- Returns: one row per conflict; keys and images as text, because JavaScript cannot hold every number; times in UTC.
select c.id::float8 as id, c.table_name as "table", c.key::text as key, c.other_key::text as "otherKey",
       c.constraint_name as constraint, c.kind, c.policy, c.winner, c.merged_image::text as merged,
       c.source_node as "sourceNode", c.source_change as "sourceChange", c.source_image::text as "sourceImage",
       c.target_node as "targetNode", c.target_change as "targetChange", c.target_image::text as "targetImage",
       pg_catalog.to_char(c.source_at at time zone 'UTC', t.form) as "sourceAt",
       pg_catalog.to_char(c.target_at at time zone 'UTC', t.form) as "targetAt",
       pg_catalog.to_char(c.at at time zone 'UTC', t.form) as at,
       pg_catalog.to_char(c.resolved_at at time zone 'UTC', t.form) as "resolvedAt"
from replicate.conflict c, (select 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text as form) t
where c.sync = $1
  and ($2::text[] is null or c.table_name = any ($2))
  and ($3::text[] is null or c.kind = any ($3))
  and ($4::boolean is null or (c.resolved_at is not null) = $4)
  and ($5::timestamptz is null or c.at >= $5)
order by c.at desc, c.id desc
limit $6::bigint
