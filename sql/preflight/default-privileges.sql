-- What: privileges that objects get when they are created.
-- Runs on: source and target.
-- Returns: creator, schema (null: in every one), kind ('tables', 'sequences' or 'functions'), grantee ('public' for
--          all), privileges. What is there without anybody's doing (the owner's own, EXECUTE for all) is left out.
select pg_catalog.pg_get_userbyid(d.defaclrole)::text as "creator",
       n.nspname::text as "schema",
       case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' else 'functions' end as "kind",
       case when x.grantee = 0 then 'public' else pg_catalog.pg_get_userbyid(x.grantee)::text end as "grantee",
       pg_catalog.array_agg(x.privilege_type::text order by x.privilege_type) as "privileges"
from pg_catalog.pg_default_acl d
left join pg_catalog.pg_namespace n on n.oid = d.defaclnamespace
cross join lateral pg_catalog.aclexplode(d.defaclacl) as x
where d.defaclobjtype in ('r', 'S', 'f')
  and x.grantee <> d.defaclrole
  and not (d.defaclobjtype = 'f' and x.grantee = 0)
  and x.privilege_type <> 'MAINTAIN'
group by 1, 2, 3, 4
order by 1, 2, 3, 4
