-- What: sequences and which column owns each of them.
-- Runs on: source and target.
-- Returns: relid, schema, name, increment, min, max, cycle, ownerRelid and ownerColumn (null for one without an owner), usedBy
--          (oids of the tables whose columns take their default from it).
select c.oid::bigint::float8 as "relid",
       n.nspname::text as "schema",
       c.relname::text as "name",
       s.seqincrement::text as "increment",
       s.seqmin::text as "min",
       s.seqmax::text as "max",
       s.seqcycle as "cycle",
       d.refobjid::bigint::float8 as "ownerRelid",
       a.attname::text as "ownerColumn",
       array(
         select distinct f.adrelid::bigint::float8
         from pg_catalog.pg_depend u
         join pg_catalog.pg_attrdef f on f.oid = u.objid
         where u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass
           and u.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and u.refobjid = c.oid
       ) as "usedBy"
from pg_catalog.pg_sequence s
join pg_catalog.pg_class c on c.oid = s.seqrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
left join pg_catalog.pg_depend d
  on d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.objid = c.oid and d.objsubid = 0
 and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjsubid > 0 and d.deptype in ('a', 'i')
left join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
where n.nspname not in ('replicate', 'information_schema') and n.nspname !~ '^pg_' and c.relpersistence <> 't'
order by 1, 2
