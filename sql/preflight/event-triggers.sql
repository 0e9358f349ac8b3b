-- What: event triggers that act on CREATE, ALTER and DROP, and so on what we install and take away.
-- Runs on: source and target.
-- Returns: name, event, enabled (O origin, A always, R replica), tags (null: all), owner, function, isExtensionMember.
select e.evtname::text as "name", e.evtevent::text as "event", e.evtenabled::text as "enabled", e.evttags as "tags",
       pg_catalog.pg_get_userbyid(e.evtowner)::text as "owner",
       e.evtfoid::pg_catalog.regproc::text as "function",
       exists (select 1 from pg_catalog.pg_depend d
               where d.classid = 'pg_catalog.pg_event_trigger'::pg_catalog.regclass and d.objid = e.oid and d.deptype = 'e') as "isExtensionMember"
from pg_catalog.pg_event_trigger e
where e.evtevent in ('ddl_command_start', 'ddl_command_end', 'sql_drop') and e.evtenabled <> 'D'
order by 1
