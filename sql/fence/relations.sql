-- What: the relations that a fence has to cover: tables with everything below them in their partition trees.
-- Runs on: source, or target: the side to be fenced. $1: oid[] of tables. $2: name of the fence's function.
-- Returns: oid, table (quoted and qualified), isFenced (its statement trigger is there and fires always), wantsRows and
--          hasRows (whether rows may come without a statement on the table itself: from the parent in classic
--          inheritance, or from a subscription; and whether the row trigger is there), in the order of oids.
with recursive tree (oid) as (
  select c.oid from pg_catalog.pg_class c where c.oid = any ($1::oid[])
  union
  select i.inhrelid
  from tree t
  join pg_catalog.pg_class p on p.oid = t.oid and p.relkind = 'p'
  join pg_catalog.pg_inherits i on i.inhparent = t.oid
),
fence (relid, name) as (
  select t.tgrelid, t.tgname
  from pg_catalog.pg_trigger t
  join pg_catalog.pg_proc f on f.oid = t.tgfoid
  join pg_catalog.pg_namespace n on n.oid = f.pronamespace
  where n.nspname = 'replicate' and f.proname = $2::name and t.tgenabled = 'A'
)
select c.oid::bigint::float8 as "oid",
       pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname) as "table",
       (select pg_catalog.count(*) = 2 from fence f where f.relid = c.oid and f.name !~ '_rows$') as "isFenced",
       c.relkind = 'r' and (
         not c.relispartition and exists (select from pg_catalog.pg_inherits i where i.inhrelid = c.oid)
         or exists (select from pg_catalog.pg_subscription_rel s where s.srrelid = c.oid)) as "wantsRows",
       exists (select from fence f where f.relid = c.oid and f.name ~ '_rows$') as "hasRows"
from tree t
join pg_catalog.pg_class c on c.oid = t.oid and c.relkind in ('r', 'p')
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
order by c.oid
