-- What: the roles of an application: those named, and those that have their rights by being members.
-- Runs on: source and target. $1: text[] of names.
-- Returns: name, canLogin, memberOf (of those). Superusers, this role and the server's own roles are left out.
with recursive reached as (
  select r.oid from pg_catalog.pg_roles r where r.rolname = any ($1::text[])
  union
  select m.member from reached t join pg_catalog.pg_auth_members m on m.roleid = t.oid
)
select r.rolname::text as "name", r.rolcanlogin as "canLogin",
       array(select pg_catalog.pg_get_userbyid(m.roleid)::text from pg_catalog.pg_auth_members m
             where m.member = r.oid and m.roleid in (select o.oid from reached o) order by 1) as "memberOf"
from reached t
join pg_catalog.pg_roles r on r.oid = t.oid
where not r.rolsuper and r.rolname !~ '^pg_' and r.rolname <> current_user
order by 1
