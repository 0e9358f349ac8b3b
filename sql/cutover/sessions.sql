-- What: sessions of applications that are connected to this database.
-- Runs on: source, when a cutover is finished.
-- Returns: session, in words. Names and addresses as far as the role may see them.
select 'pid ' || a.pid || ' of ' || coalesce(a.usename::text, 'an unknown role')
       || coalesce(' (' || nullif(a.application_name, '') || ')', '')
       || coalesce(' from ' || pg_catalog.host(a.client_addr), '') as "session"
from pg_catalog.pg_stat_activity a
where a.datname = pg_catalog.current_database()
  and a.pid <> pg_catalog.pg_backend_pid()
  and coalesce(a.backend_type, 'client backend') = 'client backend'
  and a.application_name not like 'replicate %'
order by a.pid
