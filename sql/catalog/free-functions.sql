-- What: indexes that call functions which may name things without a schema: neither of the system, nor in C, nor with a
--       search path of their own.
-- Runs on: source and target. $1: oid[] of tables and partitions.
-- Returns: relid, index, columns (that it reads), expressions, predicate, functions (signatures).
select i.indrelid::bigint::float8 as "relid", i.indexrelid::pg_catalog.regclass::text as "index",
       array(
         select a.attname::text from pg_catalog.pg_depend d
         join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = d.refobjsubid
         where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid
           and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = i.indrelid and d.refobjsubid > 0
         group by 1) as "columns",
       array(
         select pg_catalog.pg_get_indexdef(i.indexrelid, k.n::int, false)
         from pg_catalog.unnest(i.indkey::int2[]) with ordinality as k (attnum, n) where k.attnum = 0) as "expressions",
       pg_catalog.pg_get_expr(i.indpred, i.indrelid) as "predicate",
       f.functions as "functions"
from pg_catalog.pg_index i
cross join lateral (
  select pg_catalog.array_agg(distinct p.oid::pg_catalog.regprocedure::text) as functions
  from pg_catalog.pg_depend d
  left join pg_catalog.pg_operator o on d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and o.oid = d.refobjid
  join pg_catalog.pg_proc p on p.oid = case
    when d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass then d.refobjid else o.oprcode::oid end
  join pg_catalog.pg_language l on l.oid = p.prolang
  where d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = i.indexrelid
    and l.lanname not in ('internal', 'c')
    and pg_catalog.to_jsonb(p) ->> 'prosqlbody' is null
    and not exists (select 1 from pg_catalog.unnest(p.proconfig) as g (setting) where g.setting like 'search_path=%')) as f
where i.indrelid = any ($1::oid[]) and f.functions is not null
order by 2
