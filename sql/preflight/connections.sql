-- What: how many sessions a server, this database and this role may have, and how many there are.
-- Runs on: source and target.
-- Returns: one row: limit, reserved (for roles that this one is not) and used, of the server; databaseLimit and
--          databaseUsed; roleLimit and roleUsed. A limit of -1 is none.
select
  pg_catalog.current_setting('max_connections')::int as "limit",
  case when r.rolsuper then 0 else
    pg_catalog.current_setting('superuser_reserved_connections')::int
    + coalesce(pg_catalog.current_setting('reserved_connections', true), '0')::int end as "reserved",
  (select count(*)::int from pg_catalog.pg_stat_activity a
   where a.usesysid is not null and coalesce(a.backend_type, 'client backend') = 'client backend') as "used",
  d.datconnlimit as "databaseLimit",
  (select count(*)::int from pg_catalog.pg_stat_activity a
   where a.datid = d.oid and a.usesysid is not null and coalesce(a.backend_type, 'client backend') = 'client backend') as "databaseUsed",
  r.rolconnlimit as "roleLimit",
  (select count(*)::int from pg_catalog.pg_stat_activity a
   where a.usesysid = r.oid and coalesce(a.backend_type, 'client backend') = 'client backend') as "roleUsed"
from pg_catalog.pg_roles r
join pg_catalog.pg_database d on d.datname = pg_catalog.current_database()
where r.rolname = session_user
