-- What: casts that take part in finding the operators of keys, because a user has defined them as implicit. Those of base
--       types do not: their operators are declared for the very type.
-- Runs on: source and target. $1: oids of the base types of keys.
-- Returns: type, to (both for a cast's name), owner of the type.
select pg_catalog.format_type(c.castsource, null) as "type",
       pg_catalog.format_type(c.casttarget, null) as "to",
       pg_catalog.pg_get_userbyid(t.typowner)::text as "owner"
from pg_catalog.pg_cast c
join pg_catalog.pg_type t on t.oid = c.castsource
where c.castsource = any ($1::oid[])
  and c.oid >= 16384
  and c.castcontext = 'i'
  and c.castmethod in ('f', 'i')
  and (t.typtype in ('e', 'c', 'r', 'm') or t.typelem <> 0)
order by 1, 2
