-- What: what is in schema replicate that others have put there, or could. Whatever acts on our statements runs with our
--       rights; so it has to be ours, or a superuser's, or of a role that we are a member of and could become anyway. A
--       superuser is a member of every role, and trusts superusers alone.
-- Runs on: source and target, before anything else is done with the schema.
-- Returns: one row per finding: object, what is wrong, and the statement that repairs it.
with me as (
  select r.oid, r.rolname, r.rolsuper from pg_catalog.pg_roles r where r.rolname = current_user
), schema as (
  select n.oid, n.nspowner, n.nspacl from pg_catalog.pg_namespace n where n.nspname = 'replicate'
), trusted as (
  select r.oid from pg_catalog.pg_roles r, me
  where r.oid = me.oid or r.rolsuper or not me.rolsuper and pg_catalog.pg_has_role(me.oid, r.oid, 'MEMBER')
), objects as (
  select 'table'::text as kind, c.oid, c.relowner as owner, c.relkind, c.relrowsecurity or c.relforcerowsecurity as secured,
         pg_catalog.format('replicate.%I', c.relname) as name
  from pg_catalog.pg_class c, schema where c.relnamespace = schema.oid and c.relkind not in ('i', 'I', 'c', 't')
  union all
  select 'function', p.oid, p.proowner, null, false, p.oid::pg_catalog.regprocedure::text
  from pg_catalog.pg_proc p, schema where p.pronamespace = schema.oid
  union all
  select 'type', t.oid, t.typowner, null, false, pg_catalog.format('replicate.%I', t.typname)
  from pg_catalog.pg_type t, schema
  where t.typnamespace = schema.oid and t.typtype <> 'c' and t.typelem = 0
), named as (
  select o.*, case o.relkind when 'S' then 'sequence' when 'v' then 'view' when 'm' then 'materialized view'
                             when 'f' then 'foreign table' else o.kind end as noun
  from objects o
), owner_to as (
  select pg_catalog.format('owner to %I', me.rolname) as me from me
), findings as (
  select 1 as n, 'schema replicate'::text as object,
         pg_catalog.format('belongs to %s, whose code would run as %s', pg_catalog.pg_get_userbyid(s.nspowner), me.rolname) as problem,
         pg_catalog.format('drop schema replicate cascade;  -- where nothing of it is needed; else connect as %I', pg_catalog.pg_get_userbyid(s.nspowner)) as remedy
  from schema s, me where s.nspowner not in (select oid from trusted)
  union all
  select 2, pg_catalog.format('%s %s', o.noun, o.name), pg_catalog.format('belongs to %s', pg_catalog.pg_get_userbyid(o.owner)),
         pg_catalog.format('alter %s %s %s;', o.noun, o.name, owner_to.me)
  from named o, owner_to
  where o.owner not in (select oid from trusted)
    -- Said of the schema already.
    and o.owner is distinct from (select s.nspowner from schema s where s.nspowner not in (select oid from trusted))
  union all
  select 3, pg_catalog.format('%s %s', o.noun, o.name), 'is none of ours', pg_catalog.format('drop %s %s;', o.noun, o.name)
  from named o where o.relkind in ('v', 'm', 'f', 'p')
  union all
  select 4, pg_catalog.format('trigger %I on %s', t.tgname, o.name), 'is none of ours',
         pg_catalog.format('drop trigger %I on %s;', t.tgname, o.name)
  from pg_catalog.pg_trigger t join named o on o.oid = t.tgrelid and o.kind = 'table' where not t.tgisinternal
  union all
  select 5, pg_catalog.format('rule %I on %s', r.rulename, o.name), 'is none of ours',
         pg_catalog.format('drop rule %I on %s;', r.rulename, o.name)
  from pg_catalog.pg_rewrite r join named o on o.oid = r.ev_class and o.kind = 'table' and o.relkind not in ('v', 'm')
  union all
  select 6, pg_catalog.format('policy %I on %s', p.polname, o.name), 'is none of ours',
         pg_catalog.format('drop policy %I on %s;', p.polname, o.name)
  from pg_catalog.pg_policy p join named o on o.oid = p.polrelid and o.kind = 'table'
  union all
  select 7, pg_catalog.format('table %s', o.name), 'has row level security',
         pg_catalog.format('alter table %s no force row level security, disable row level security;', o.name)
  from named o where o.secured
  union all
  select 8, pg_catalog.format('table %s', c.oid::pg_catalog.regclass), pg_catalog.format('inherits from %s', o.name),
         pg_catalog.format('alter table %s no inherit %s;', c.oid::pg_catalog.regclass, o.name)
  from pg_catalog.pg_inherits i join named o on o.oid = i.inhparent and o.kind = 'table' join pg_catalog.pg_class c on c.oid = i.inhrelid
  union all
  -- A default, check or index that calls what is neither the server's nor ours.
  select distinct 9, pg_catalog.pg_describe_object(d.classid, d.objid, 0),
         pg_catalog.format('uses %s, which is none of ours', pg_catalog.pg_describe_object(d.refclassid, d.refobjid, 0)),
         pg_catalog.format(e.remedy, e.name, e.part)
  from (
    select 'pg_catalog.pg_attrdef'::pg_catalog.regclass as classid, f.oid, o.name, a.attname::text as part,
           'alter table %s alter column %I drop default;' as remedy
    from pg_catalog.pg_attrdef f join named o on o.oid = f.adrelid and o.kind = 'table'
    join pg_catalog.pg_attribute a on a.attrelid = f.adrelid and a.attnum = f.adnum
    union all
    select 'pg_catalog.pg_constraint'::pg_catalog.regclass, k.oid, o.name, k.conname::text, 'alter table %s drop constraint %I;'
    from pg_catalog.pg_constraint k join named o on o.oid = k.conrelid and o.kind = 'table'
    union all
    select 'pg_catalog.pg_class'::pg_catalog.regclass, x.indexrelid, o.name, c.relname::text, 'drop index replicate.%2$I;  -- of %1$s'
    from pg_catalog.pg_index x join named o on o.oid = x.indrelid and o.kind = 'table'
    join pg_catalog.pg_class c on c.oid = x.indexrelid
  ) as e
  join pg_catalog.pg_depend d on d.classid = e.classid and d.objid = e.oid
  left join pg_catalog.pg_proc p on d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass and p.oid = d.refobjid
  left join pg_catalog.pg_operator q on d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass and q.oid = d.refobjid
  where coalesce(p.pronamespace, q.oprnamespace) not in (
    select n.oid from pg_catalog.pg_namespace n where n.nspname in ('pg_catalog', 'replicate'))
  union all
  select 10, 'schema replicate', pg_catalog.format('%s may create objects in it', g.role),
         pg_catalog.format('revoke create on schema replicate from %s;', g.role)
  from schema s, lateral (
    select case a.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end as role
    from pg_catalog.aclexplode(s.nspacl) a
    where a.privilege_type = 'CREATE' and a.grantee not in (select oid from trusted)) as g
  union all
  -- Only whoever may use the schema can put a trigger on a table of it.
  select 11, pg_catalog.format('table %s', o.name), pg_catalog.format('%s may put triggers on it', g.role),
         pg_catalog.format('revoke trigger on table %s from %s;', o.name, g.role)
  from named o join pg_catalog.pg_class c on c.oid = o.oid and o.kind = 'table', schema s, lateral (
    select case a.grantee when 0 then 'public' else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) end as role
    from pg_catalog.aclexplode(c.relacl) a
    where a.privilege_type = 'TRIGGER' and a.grantee not in (select oid from trusted)
      and exists (select 1 from pg_catalog.aclexplode(s.nspacl) u
                  where u.privilege_type = 'USAGE' and (a.grantee = 0 or u.grantee in (0, a.grantee)))) as g
)
select f.object as "object", f.problem as "problem", f.remedy as "remedy" from findings f order by f.n, f.object limit 100
