-- What: keeps the row of the side that loses, as it is when a conflict is resolved, unless the log has it like that.
-- Runs on: source, target.
-- Holes: side, source or target. Parameters: $1 id; $2 the row as JSON, null where there is none.
-- Returns: nothing.
-- The log has the columns that are replicated; the row has all of them. Only while the entry is pending: later, the row may
-- be the winner's already.
update replicate.conflict as c
set {{side}}_image = i.image,
    {{side}}_at = null,
    {{side}}_change = case when i.image is null then 'delete' when c.{{side}}_image is null then 'insert' else 'update' end
from (
  select c.id, case when $2::jsonb is not null then (
      select coalesce(pg_catalog.jsonb_object_agg(e.key, e.value), $2::jsonb) from pg_catalog.jsonb_each($2::jsonb) as e
      where coalesce(c.source_image, c.target_image, $2::jsonb) ? e.key)
    end as image
  from replicate.conflict as c where c.id = $1
) as i
where c.id = i.id and c.winner = 'skip' and c.{{side}}_image is distinct from i.image
