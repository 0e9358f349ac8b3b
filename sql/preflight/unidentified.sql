-- What: tables that a publication takes along and whose rows it cannot tell apart: UPDATE and DELETE on them are refused.
-- Runs on: source and target. $1: oid[] of tables and partitions.
-- Returns: relid, schema, name, owner, publications.
with recursive line as (
  select c.oid, c.oid as above from pg_catalog.pg_class c where c.oid = any ($1::oid[]) and c.relkind = 'r'
  union
  select l.oid, i.inhparent from line l join pg_catalog.pg_inherits i on i.inhrelid = l.above
)
select c.oid::bigint::float8 as "relid", n.nspname::text as "schema", c.relname::text as "name",
       pg_catalog.pg_get_userbyid(c.relowner)::text as "owner",
       pg_catalog.array_agg(distinct p.pubname::text) as "publications"
from line l
join pg_catalog.pg_class c on c.oid = l.oid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_class a on a.oid = l.above
join pg_catalog.pg_namespace s on s.oid = a.relnamespace
join pg_catalog.pg_publication_tables t on t.schemaname = s.nspname and t.tablename = a.relname
join pg_catalog.pg_publication p on p.pubname = t.pubname and (p.pubupdate or p.pubdelete)
where (a.oid = c.oid or c.relispartition)
  and case c.relreplident
    when 'f' then false
    when 'n' then true
    when 'i' then not exists (select 1 from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisreplident and i.indisvalid)
    else not exists (select 1 from pg_catalog.pg_index i where i.indrelid = c.oid and i.indisprimary and i.indisvalid) end
group by c.oid, n.nspname, c.relname, c.relowner
order by 2, 3
