import { execFile } from "node:child_process";
import { promisify } from "node:util";

import { withClient } from "./admin.ts";

// A schema as text, by the server's own words for each of its objects, to be compared before and after.

const objects = `
  select 'schema ' || nspname || ' ' || coalesce(nspacl::text, '') as line from pg_namespace where nspname not like 'pg\\_%'
  union all
  select 'relation ' || c.oid::regclass::text || ' ' || c.relkind::text || ' ' || c.relpersistence::text || ' '
         || c.relreplident::text || ' ' || c.relrowsecurity || c.relforcerowsecurity || ' '
         || coalesce(c.relacl::text, '') || ' ' || coalesce(c.reloptions::text, '') || ' ' || coalesce(obj_description(c.oid, 'pg_class'), '')
         || ' ' || coalesce(pg_get_expr(c.relpartbound, c.oid), '') || ' owner ' || c.relowner::regrole
    from pg_class c join s on s.oid = c.relnamespace
  union all
  select 'column ' || a.attrelid::regclass::text || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' '
         || a.attnotnull || ' ' || a.attidentity::text || ' ' || coalesce(nullif(to_jsonb(a) ->> 'attstattarget', '-1'), '') || ' '
         || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
    from pg_attribute a join pg_class c on c.oid = a.attrelid join s on s.oid = c.relnamespace
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
   where a.attnum > 0 and not a.attisdropped
  union all
  select 'index ' || pg_get_indexdef(i.indexrelid) || ' ' || i.indisprimary || i.indimmediate || i.indisvalid || i.indisclustered || i.indisreplident
    from pg_index i join pg_class c on c.oid = i.indrelid join s on s.oid = c.relnamespace
  union all
  select 'constraint ' || k.conrelid::regclass::text || ' ' || k.conname || ' ' || pg_get_constraintdef(k.oid) || ' ' || k.convalidated
         || ' ' || coalesce(obj_description(k.oid, 'pg_constraint'), '')
    from pg_constraint k join s on s.oid = k.connamespace
  union all
  select 'trigger ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text || ' ' || coalesce(obj_description(t.oid, 'pg_trigger'), '')
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join s on s.oid = c.relnamespace where not t.tgisinternal
  union all
  select 'rule ' || pg_get_ruledef(r.oid) || ' ' || r.ev_enabled::text
    from pg_rewrite r join pg_class c on c.oid = r.ev_class join s on s.oid = c.relnamespace
  union all
  select 'function ' || p.oid::regprocedure::text || ' ' || p.prosrc || ' ' || coalesce(p.proacl::text, '')
    from pg_proc p join s on s.oid = p.pronamespace
  union all
  select 'type ' || t.oid::regtype::text || ' ' || t.typtype::text from pg_type t join s on s.oid = t.typnamespace
  union all
  select 'sequence ' || q.seqrelid::regclass::text || ' ' || q.seqtypid::regtype::text || ' ' || q.seqstart || ' ' || q.seqincrement
         || ' ' || q.seqmin || ' ' || q.seqmax || ' ' || q.seqcycle || ' ' || q.seqcache
    from pg_sequence q join pg_class c on c.oid = q.seqrelid join s on s.oid = c.relnamespace
  union all
  select 'policy ' || polname || ' ' || polrelid::regclass::text from pg_policy
  union all
  select 'event trigger ' || evtname from pg_event_trigger
  union all
  select 'publication ' || pubname from pg_publication
  union all
  select 'default privileges ' || defaclrole::regrole || defaclacl::text from pg_default_acl`;

/** Lines, sorted. */
export async function describeSchema(url: string): Promise<string[]> {
  return withClient(url, async (client) => {
    await client.query("set search_path = ''");
    const { rows } = await client.query<{ line: string }>(
      `with s as (select oid from pg_namespace where nspname not in ('pg_catalog', 'information_schema') and nspname not like 'pg\\_t%')
       select line from (${objects}) as o order by line collate "C"`,
    );
    return rows.map(({ line }) => line);
  });
}

/** `pg_dump --schema-only`, or undefined where the program is missing or older than the server. */
export async function dumpSchema(url: string): Promise<string | undefined> {
  try {
    const { stdout } = await promisify(execFile)("pg_dump", ["--schema-only", `--dbname=${url}`], {
      maxBuffer: 64 * 1024 * 1024,
    });
    // Newer releases write a random word that guards the dump against its own data.
    return stdout.replaceAll(/^\\(un)?restrict .*$/gm, "");
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    if (code === "ENOENT" || /server version mismatch/.test(stderr ?? "")) return undefined;
    throw error;
  }
}
