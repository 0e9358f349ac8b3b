-- What: sessions of ours that wait for a lock, or try again and again to get one (they say so in their
--       application_name, see src/postgres/lock.ts), and who has it.
-- Runs on: source, target.
-- Returns: session, what (a table, as far as it is known), seconds (null where the role may not see it), blockedBy
--          (null where nobody is to be seen).
with ours as (
  select a.pid, a.state_change, a.query_start,
         pg_catalog.split_part(pg_catalog.split_part(a.application_name, ' waits: ', 1), ' #', 1) as session,
         nullif(pg_catalog.split_part(a.application_name, ' waits: ', 2), '') as tries,
         (select pg_catalog.min(l.relation::pg_catalog.regclass::text)
          from pg_catalog.pg_locks l where l.pid = a.pid and not l.granted) as relation,
         exists (select from pg_catalog.pg_locks l where l.pid = a.pid and not l.granted) as is_waiting
  from pg_catalog.pg_stat_activity a
  where a.datname = pg_catalog.current_database() and a.application_name like 'replicate %'
    and a.pid <> pg_catalog.pg_backend_pid()
),
blocker as (
  select o.pid as waiting, b.pid, b.usename, b.state, b.xact_start
  from ours o
  join pg_catalog.pg_stat_activity b on b.pid <> o.pid and b.pid <> pg_catalog.pg_backend_pid()
  where o.is_waiting and b.pid = any (pg_catalog.pg_blocking_pids(o.pid))
     or not o.is_waiting and o.tries is not null and b.application_name not like 'replicate %' and exists (
          select from pg_catalog.pg_locks l
          where l.pid = b.pid and l.granted and l.relation::pg_catalog.regclass::text = o.tries)
)
select o.session as "session",
       coalesce(o.relation, o.tries, 'a lock') as "what",
       extract(epoch from pg_catalog.clock_timestamp() - o.query_start)::float8 as "seconds",
       (select pg_catalog.string_agg(
                 'pid ' || b.pid || ' of ' || coalesce(b.usename::text, 'an unknown role')
                 || coalesce(', ' || b.state, '')
                 || coalesce(', open for ' || pg_catalog.round(extract(epoch from pg_catalog.clock_timestamp() - b.xact_start)) || ' s', ''),
                 '; ' order by b.xact_start)
        from blocker b where b.waiting = o.pid) as "blockedBy"
from ours o
where o.is_waiting or o.tries is not null
order by o.session, o.pid
