-- What: empties a delta table if every sync that reads the capture has applied all of it. Takes a lock that nobody has to
--       wait behind: a writer in flight, or a reader, makes it fail (55P03). All on the server, in one go, so that no
--       writer ever waits for a network. TRUNCATE fires no event trigger.
-- Runs on: source, outside of a transaction. Holes: id of the capture; delta, the table; index, the name of its index as a
--          literal; foreign, a condition that leaves out what the sync `s` has brought itself. A late writer that still has
--          an old function may add rows afterwards; they are read like all others.
-- Returns: nothing. Whether it has emptied the table shows in its size.
do $clear$
declare
  step integer;
begin
  -- First without a lock: nobody has to wait while rows are looked for that most of the time are there. Then each with a
  -- snapshot of its own, so that what a writer has committed before the lock is seen under it.
  for step in 1 .. 2 loop
    if exists (
      select from replicate.subscription as s
      join replicate.source_sync as y on y.name = s.sync
      cross join lateral (select coalesce(s.since, y.position)::pg_catalog.txid_snapshot as position) as p
      where s.capture_id = {{id}}
        and (s.is_pinned or p.position is null or exists (
          select from {{delta}} as d
          where d.txid >= pg_catalog.txid_snapshot_xmin(p.position)
            and not pg_catalog.txid_visible_in_snapshot(d.txid, p.position){{foreign}}))
    ) then
      return;
    end if;
    if step = 1 then
      lock table {{delta}} in access exclusive mode nowait;
    end if;
  end loop;
  truncate {{delta}};
  -- It was made when the table was large.
  if pg_catalog.to_regclass({{index}}) is not null then
    begin
      execute 'drop index ' || {{index}};
    exception when others then
      null;
    end;
  end if;
end
$clear$
