-- What: the search path under which what an application has written about a table (expressions of indexes, checks,
--       generated columns, domains, triggers) finds what it finds in the application's own sessions: that of the table's
--       owner, that of our role, and the table's schema. pg_catalog comes before and pg_temp behind all of them, so that
--       nothing can stand in for what is built in.
-- Runs on: source and target. $1: oid[] of relations.
-- Returns: relid, path (as SET takes it).
select c.oid::bigint::float8 as "relid",
       pg_catalog.concat_ws(', ', (
         select pg_catalog.string_agg(item.name, ', ' order by item.n)
         from (
           -- Names in double quotes, or bare ones, which are in lower case then.
           select case when m.match[1] like '"%' then m.match[1] when m.match[1] = '$user' then '"$user"'
                       else pg_catalog.quote_ident(pg_catalog.lower(m.match[1])) end as name, m.n
           from pg_catalog.regexp_matches(
             pg_catalog.replace(chosen.path, '"$user"', pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)))
               || ', ' || ours.path,
             '("(?:[^"]|"")*"|[^,"\s]+)', 'g') with ordinality as m (match, n)) as item
         where pg_catalog.btrim(item.name, '"') not in ('', 'pg_catalog', 'pg_temp')),
         pg_catalog.quote_ident(s.nspname), 'pg_temp') as "path"
from pg_catalog.pg_class c
join pg_catalog.pg_namespace s on s.oid = c.relnamespace
cross join (select g.reset_val as path from pg_catalog.pg_settings g where g.name = 'search_path') as ours
cross join lateral (
  select coalesce((
    select pg_catalog.substr(e.setting, 13)
    from pg_catalog.pg_db_role_setting d
    cross join pg_catalog.unnest(d.setconfig) as e (setting)
    where d.setrole in (c.relowner, 0::oid)
      and d.setdatabase in (0::oid, (select b.oid from pg_catalog.pg_database b where b.datname = pg_catalog.current_database()))
      and e.setting like 'search_path=%'
    order by d.setrole <> 0::oid desc, d.setdatabase <> 0::oid desc
    limit 1), ours.path) as path) as chosen
where c.oid = any ($1::oid[])
