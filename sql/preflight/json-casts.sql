-- What: casts to json of users' own, which to_jsonb() runs where rows in conflict are logged: from the types of columns, and
--       from what these are made of. Those of extensions are a superuser's.
-- Runs on: source and target, where conflicts are found. $1: oids of the base types of columns.
-- Returns: type, to (both for a cast's name), owner of the type.
with recursive part (oid) as (
  select pg_catalog.unnest($1::oid[])
  union
  select x.oid
  from part p
  join pg_catalog.pg_type t on t.oid = p.oid
  cross join lateral (
    select t.typelem where t.typelem <> 0
    union all select t.typbasetype where t.typtype = 'd'
    union all select a.atttypid from pg_catalog.pg_attribute a
      where t.typrelid <> 0 and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) as x (oid)
)
select pg_catalog.format_type(c.castsource, null) as "type",
       pg_catalog.format_type(c.casttarget, null) as "to",
       pg_catalog.pg_get_userbyid(t.typowner)::text as "owner"
from pg_catalog.pg_cast c
join pg_catalog.pg_type t on t.oid = c.castsource
where c.castsource in (select p.oid from part p)
  and c.casttarget = 'pg_catalog.json'::pg_catalog.regtype
  and c.oid >= 16384
  and c.castmethod = 'f'
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_cast'::pg_catalog.regclass and d.objid = c.oid and d.deptype = 'e'
  )
order by 1, 2
