-- What: what the target remembers of its own tables, so that it is noticed when one of them changes.
-- Runs on: source and target, inside one transaction, at `init`, or when a sync of an earlier version is followed.
-- Returns: nothing.

-- What the target's table was when its rows were the source's (see catalog/fingerprint); null: not known yet.
alter table replicate.sync_table add column target_fingerprint text;

-- Raises SQLSTATE RE009 where the columns of one of these tables were altered since their versions were read, see rows.versions in
-- catalog/fingerprint. At the end of a batch, which holds a lock on each by then.
create function replicate.expect_columns(relids oid[], versions text[])
returns void
language plpgsql
as $function$
begin
  perform 1
    from rows from (pg_catalog.unnest(relids), pg_catalog.unnest(versions)) as e (relid, versions)
   where e.versions <> (
     select coalesce(pg_catalog.string_agg(v.xmin, ' ' order by v.xmin), '')
       from (select distinct a.xmin::text collate "C" as xmin
               from pg_catalog.pg_attribute a
              where a.attrelid = e.relid and a.attnum > 0 and not a.attisdropped) as v);
  if found then
    raise exception using errcode = 'RE009', message = 'a table of the batch was altered on the target';
  end if;
end
$function$;
