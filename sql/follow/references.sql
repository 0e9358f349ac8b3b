-- What: the foreign keys that point to a table, as a condition that joins the rows c that point with the row t pointed at.
-- Runs on: source and target. $1: oid of the table.
-- Returns: one row per foreign key: table (quoted and qualified), condition.
select pg_catalog.format('%I.%I', n.nspname, r.relname) as "table",
       (select pg_catalog.string_agg(
                 pg_catalog.format('t.%I operator(%I.%s) c.%I', p.attname, o.nspname, e.oprname, f.attname), ' and ' order by k.n)
        from pg_catalog.generate_subscripts(x.conkey, 1) as k (n)
        join pg_catalog.pg_attribute f on f.attrelid = x.conrelid and f.attnum = x.conkey[k.n]
        join pg_catalog.pg_attribute p on p.attrelid = x.confrelid and p.attnum = x.confkey[k.n]
        join pg_catalog.pg_operator e on e.oid = x.conpfeqop[k.n]
        join pg_catalog.pg_namespace o on o.oid = e.oprnamespace) as "condition"
from pg_catalog.pg_constraint x
join pg_catalog.pg_class r on r.oid = x.conrelid
join pg_catalog.pg_namespace n on n.oid = r.relnamespace
where x.contype = 'f' and x.confrelid = $1
