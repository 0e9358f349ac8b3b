-- What: forgets resolved conflicts, a thousand at a time.
-- Runs on: source, target.
-- Parameters: $1 sync; $2 seconds since they were resolved.
-- Returns: nothing; how many is told by the command tag.
delete from replicate.conflict
where id in (
  select id from replicate.conflict
  where sync = $1 and resolved_at < now() - pg_catalog.make_interval(secs => $2)
  limit 1000)
