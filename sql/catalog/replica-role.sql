-- What: sets session_replication_role = replica, so that neither triggers nor foreign keys act on replicated rows, if the
--       role may. Tried, because no catalogue tells: superuser, a provider's role, or GRANT SET ON PARAMETER from 15 on.
-- Runs on: target, and source where a sync goes two ways, at the start of a session. Hole: pid of the session that is meant; any other stays as it is.
-- Returns: nothing; the setting tells whether it was allowed.
do $block$
begin
  if pg_catalog.pg_backend_pid() = {{pid}} then
    set session_replication_role = replica;
  end if;
exception when insufficient_privilege then
  null;
end
$block$
