-- What: settings that sessions of this database begin with by ALTER DATABASE and ALTER ROLE … SET. Neither a dump of the
--       database nor a sync of its tables brings them over.
-- Runs on: source and target.
-- Returns: role (null for all), isInDatabase (false for what a role has in every database), name, value.
select r.rolname::text as "role", d.setdatabase <> 0::oid as "isInDatabase",
       pg_catalog.split_part(e.setting, '=', 1) as "name",
       pg_catalog.substr(e.setting, pg_catalog.strpos(e.setting, '=') + 1) as "value"
from pg_catalog.pg_db_role_setting d
cross join pg_catalog.unnest(d.setconfig) as e (setting)
left join pg_catalog.pg_roles r on r.oid = d.setrole
where d.setdatabase in (0::oid, (select b.oid from pg_catalog.pg_database b where b.datname = pg_catalog.current_database()))
  and (d.setrole = 0::oid or r.rolname !~ '^pg_')
order by 1 nulls first, 2 desc, 3
