-- What: owners who may do less than our role, where that is a superuser or may become one: what they have defined runs as it.
-- Runs on: source and target. $1: names of the owners of tables.
-- Returns: owner.
with recursive
-- Whom our role may act as.
reach as (
  select r.oid from pg_catalog.pg_roles r where r.rolname = current_user
  union
  select m.roleid from reach p join pg_catalog.pg_auth_members m on m.member = p.oid
)
select r.rolname::text as "owner"
from pg_catalog.pg_roles r
where r.rolname = any ($1::text[])
  and exists (select 1 from reach p join pg_catalog.pg_roles s on s.oid = p.oid where s.rolsuper)
  and not exists (
    select 1 from pg_catalog.pg_roles s where s.rolsuper and pg_catalog.pg_has_role(r.oid, s.oid, 'MEMBER'))
order by 1
