-- What: raises a fence for all tables at one moment, by replacing its function (see fence-function). Transactions whose
--       id is older than this one may go on writing for now; who has none yet when it first writes is refused. In one
--       statement, so that hardly anybody gets an id in between.
-- Runs on: source, or target: the side to be fenced, whose tables have the triggers already. Holes: the fence's id, and the
--       statements that replace the function, as a literal, with the words "raising transaction" for the id.
-- Returns: nothing. Raised already, it keeps the id.
do $raise$
declare
  raising bigint;
begin
  select case when f.lifted_at is null then f.raised_txid end into raising
  from replicate.fence f where f.id = {{id}} for update;
  raising := coalesce(raising, pg_catalog.txid_current());
  update replicate.fence f
  set raised_txid = raising, sealed_at = null, lifted_at = null,
      fenced_at = case when f.lifted_at is null then f.fenced_at else pg_catalog.clock_timestamp() end
  where f.id = {{id}};
  execute pg_catalog.replace({{function}}, 'raising transaction', raising::text);
end
$raise$;
