-- What: subscriptions that write to tables.
-- Runs on: target. $1: oid[] of tables and partitions.
-- Returns: name, owner, tables.
select p.subname::text as "name",
       pg_catalog.pg_get_userbyid(p.subowner)::text as "owner",
       pg_catalog.array_agg(r.srrelid::pg_catalog.regclass::text order by 1) as "tables"
from pg_catalog.pg_subscription_rel r
-- The view tells the number of each, which the table shows to superusers alone before 15.
join (select distinct s.subid, s.subname from pg_catalog.pg_stat_subscription s) as v on v.subid = r.srsubid
join pg_catalog.pg_subscription p on p.subname = v.subname
  and p.subdbid = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())
where r.srrelid = any ($1::oid[]) and p.subenabled
group by 1, 2
order by 1
