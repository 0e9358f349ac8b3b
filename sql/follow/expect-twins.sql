-- What: raises SQLSTATE RE008 where a leaf partition is not any more what it was when a batch was decided to empty it.
-- Runs on: target, in the batch's transaction, before the leaves are emptied; what it has locked stays so until the end.
--          Holes: root (name), memberships (catalog/memberships of the root), expected (literal: JSON array of oid and
--          membership). The body of a DO statement.
-- Returns: nothing.
begin
  -- Against DETACH and ATTACH: then the next statement cannot be about another tree.
  lock table only {{root}} in share update exclusive mode;
  if exists (
    select 1
    from pg_catalog.jsonb_to_recordset({{expected}}::pg_catalog.jsonb) as e (oid float8, membership text)
    left join ({{memberships}}) as m on m.oid = e.oid
    where m.membership is distinct from e.membership
  ) then
    raise exception using errcode = 'RE008', message = 'partitions changed while a batch was applied';
  end if;
end
