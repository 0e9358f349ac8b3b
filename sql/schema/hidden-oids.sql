-- What: what is made on the hidden column oid of tables WITH OIDS: indexes, keys, foreign keys, views, rules, policies, triggers.
-- Runs on: source. From version 12 on there is no such column, and nothing is found.
-- Returns: classid and objid of what refers to it (a view instead of its rule), and the schema and name of the table.
select distinct on (1, 2)
  (case when r.rulename = '_RETURN' then d.refclassid else d.classid end)::bigint::float8 as "classid",
  (case when r.rulename = '_RETURN' then r.ev_class else d.objid end)::bigint::float8 as "objid",
  n.nspname::text as "schema",
  c.relname::text as "name"
from pg_catalog.pg_depend d
join pg_catalog.pg_class c on c.oid = d.refobjid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_rewrite r on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and r.oid = d.objid
where pg_catalog.current_setting('server_version_num')::int < 120000
  and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  -- The number of the column oid; it was another column's later.
  and d.refobjsubid = -2
  and c.oid >= 16384
order by 1, 2, 3, 4
