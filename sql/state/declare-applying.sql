-- What: makes a session one whose changes the captures of a two-way sync leave out, and forgets those that have ended.
--       Where there is no state yet, nothing is captured either.
-- Runs on: source or target, whichever is written to, at the start of a session. Hole: token, as a literal.
-- Returns: nothing.
do $declare$
begin
  if pg_catalog.to_regclass('replicate.applying') is not null then
    delete from replicate.applying as a
    where a.pid = pg_catalog.pg_backend_pid()
      or not exists (select from pg_catalog.pg_stat_activity as s where s.pid = a.pid);
    insert into replicate.applying (token, pid) values ({{token}}, pg_catalog.pg_backend_pid());
  end if;
end
$declare$;
