-- What: statements that make the types of a table's columns, down to the last element, that are neither built in, nor of an
--       extension, nor the type of some table's rows.
-- Runs on: source. $1: oid of the table.
-- Returns: schema, name (quoted, with its schema), statement, comment (a statement, or null); in the order in which they can be run. A range whose
--          functions are users' own has no statement.
-- Reads through to_jsonb() where a column does not exist on every version.
with recursive
tree as (
  select $1::oid as oid
  union
  select i.inhrelid from tree t join pg_catalog.pg_inherits i on i.inhparent = t.oid
),
reachable (oid, depth) as (
  select a.atttypid, 0
  from pg_catalog.pg_attribute a
  where a.attrelid in (select t.oid from tree t) and a.attnum > 0 and not a.attisdropped
  union
  select part.oid, r.depth + 1
  from reachable r
  join pg_catalog.pg_type t on t.oid = r.oid
  cross join lateral (
    select t.typelem as oid where t.typelem <> 0 and t.typlen = -1
    union all
    select t.typbasetype where t.typtype = 'd'
    union all
    select g.rngsubtype from pg_catalog.pg_range g where g.rngtypid = t.oid
    union all
    select g.rngtypid from pg_catalog.pg_range g where (pg_catalog.to_jsonb(g) ->> 'rngmultitypid')::oid = t.oid
    union all
    select a.atttypid
    from pg_catalog.pg_attribute a
    where t.typtype = 'c' and a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped
  ) as part
)
select n.nspname::text as "schema",
       pg_catalog.format_type(t.oid, null) as "name",
       case t.typtype
         when 'e' then 'create type ' || pg_catalog.format_type(t.oid, null) || ' as enum (' || coalesce((
             select pg_catalog.string_agg(pg_catalog.quote_literal(l.enumlabel), ', ' order by l.enumsortorder)
             from pg_catalog.pg_enum l where l.enumtypid = t.oid), '') || ')'
         when 'd' then 'create domain ' || pg_catalog.format_type(t.oid, null) || ' as '
             || pg_catalog.format_type(t.typbasetype, t.typtypmod)
             || case when t.typcollation <> b.typcollation then ' collate ' || pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(co.collname) else '' end
             || case when t.typdefaultbin is not null then ' default ' || pg_catalog.pg_get_expr(t.typdefaultbin, 'pg_catalog.pg_type'::pg_catalog.regclass)
                     when t.typdefault is not null then ' default ' || pg_catalog.quote_literal(t.typdefault) else '' end
             || case when t.typnotnull then ' not null' else '' end
             || coalesce((
                  select pg_catalog.string_agg(' constraint ' || pg_catalog.quote_ident(k.conname) || ' '
                           || pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid), ' NOT VALID$', ''), '' order by k.conname)
                  from pg_catalog.pg_constraint k where k.contypid = t.oid and k.contype = 'c'), '')
         when 'c' then 'create type ' || pg_catalog.format_type(t.oid, null) || ' as (' || coalesce((
             select pg_catalog.string_agg(
                      pg_catalog.quote_ident(a.attname) || ' ' || pg_catalog.format_type(a.atttypid, a.atttypmod)
                      || case when a.attcollation <> at.typcollation then ' collate ' || pg_catalog.quote_ident(an.nspname) || '.' || pg_catalog.quote_ident(ac.collname) else '' end,
                      ', ' order by a.attnum)
             from pg_catalog.pg_attribute a
             join pg_catalog.pg_type at on at.oid = a.atttypid
             left join pg_catalog.pg_collation ac on ac.oid = a.attcollation
             left join pg_catalog.pg_namespace an on an.oid = ac.collnamespace
             where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped), '') || ')'
         when 'r' then (
             select 'create type ' || pg_catalog.format_type(t.oid, null) || ' as range (subtype = '
                    || pg_catalog.format_type(g.rngsubtype, null)
                    || ', subtype_opclass = ' || pg_catalog.quote_ident(opn.nspname) || '.' || pg_catalog.quote_ident(op.opcname)
                    || case when g.rngcollation <> 0 then ', collation = ' || pg_catalog.quote_ident(gn.nspname) || '.' || pg_catalog.quote_ident(gc.collname) else '' end
                    || case when g.rngsubdiff <> 0 then ', subtype_diff = ' || g.rngsubdiff::pg_catalog.regproc::text else '' end
                    || ')'
             from pg_catalog.pg_range g
             join pg_catalog.pg_opclass op on op.oid = g.rngsubopc
             join pg_catalog.pg_namespace opn on opn.oid = op.opcnamespace
             left join pg_catalog.pg_collation gc on gc.oid = g.rngcollation
             left join pg_catalog.pg_namespace gn on gn.oid = gc.collnamespace
             where g.rngtypid = t.oid and g.rngcanonical = 0 and g.rngsubdiff < 16384)
       end as "statement",
       'comment on ' || case t.typtype when 'd' then 'domain ' else 'type ' end || pg_catalog.format_type(t.oid, null)
         || ' is ' || pg_catalog.quote_literal(pg_catalog.obj_description(t.oid, 'pg_type')) as "comment"
from (select r.oid, pg_catalog.max(r.depth) as depth from reachable r group by r.oid) as r
join pg_catalog.pg_type t on t.oid = r.oid
join pg_catalog.pg_namespace n on n.oid = t.typnamespace
left join pg_catalog.pg_type b on b.oid = t.typbasetype
left join pg_catalog.pg_collation co on co.oid = t.typcollation
left join pg_catalog.pg_namespace cn on cn.oid = co.collnamespace
left join pg_catalog.pg_class c on c.oid = t.typrelid
where t.typtype in ('e', 'd', 'c', 'r') and t.oid >= 16384 and coalesce(c.relkind, 'c') = 'c'
  and not exists (
    select from pg_catalog.pg_depend d
    where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid and d.deptype = 'e')
order by r.depth desc, t.oid
