import type { Database } from "./database.ts";

// An application whose functions name things without a schema, and a schema that tries to stand in for what is built in.

/** Functions whose bodies name things without a schema, as many applications have them, and what can use them. */
export const path = "app, tools, public";

/** `how`: what the functions are told besides. */
export const application = (how = ""): string => `
  set search_path = ${path};
  create schema app; create schema tools;
  create function tools.folded(t text) returns text language sql immutable strict as 'select lower($1)';
  create function app.slug(t text) returns text language sql immutable ${how} as 'select folded($1)';
  create function app.slug_later(t text) returns text language plpgsql immutable ${how} as $$ begin return folded(t); end $$;
  create function app.is_fine(t text) returns boolean language plpgsql immutable ${how} as $$ begin return folded(t) <> 'bad'; end $$;
  create domain app.word as text check (app.is_fine(value));
  create table app.by_index (id int primary key, name varchar(40) not null, n int, pad text);
  create index by_index_slug on app.by_index (app.slug(name));
  create index by_index_later on app.by_index (app.slug_later(name));
  create index by_index_partial on app.by_index (n) where app.is_fine(name);
  create unique index by_index_unique on app.by_index (app.slug_later(name || id));
  alter table app.by_index add constraint by_index_apart exclude using btree (app.slug_later(name || id) with =);
  create table app.by_check (id int primary key, name text check (app.is_fine(name)), other app.word, pad text);
  create table app.by_column (id int primary key, name text, slug text generated always as (app.slug_later(name)) stored);
  create table app.by_default (id int primary key, name text default app.slug_later('X'));
  create table app.by_partition (id int, name text) partition by list (app.slug_later(name));
  create table app.by_partition_a partition of app.by_partition for values in ('a');
  create table app.by_partition_rest partition of app.by_partition default;
  create table app.keyless (name text, pad text);
  create index keyless_slug on app.keyless (app.slug(name));
  alter table app.by_partition_a add primary key (id); alter table app.by_partition_rest add primary key (id);
  create table app.parent (id int primary key, name text); create index parent_slug on app.parent (app.slug(name));
  create table app.child (id int primary key, parent_id int references app.parent deferrable initially deferred, name text);
  create index child_slug on app.child (app.slug(name));
`;

export const rows = `
  set search_path = ${path};
  insert into app.by_index select g, 'Name ' || g, g, repeat('x', 500) from generate_series(1, 12000) g;
  insert into app.by_check select g, 'Name ' || g, 'Word ' || g, repeat('x', 100) from generate_series(1, 500) g;
  insert into app.by_column select g, 'Name ' || g from generate_series(1, 500) g;
  insert into app.by_default select g, 'Name ' || g from generate_series(1, 500) g;
  insert into app.keyless select 'Name ' || g from generate_series(1, 50) g;
  insert into app.parent select g, 'Name ' || g from generate_series(1, 500) g;
  insert into app.child select g, 1 + g % 500, 'Name ' || g from generate_series(1, 500) g;
  analyze;
`;

export const changes = `
  set search_path = ${path};
  update app.by_index set name = 'Changed ' || id where id % 50 = 0; delete from app.by_index where id % 50 = 1;
  insert into app.by_index values (-1, 'new', 1), (-2, 'newer', 2);
  update app.by_check set name = 'Changed ' || id, other = 'x' where id % 50 = 0; delete from app.by_check where id = 3;
  update app.by_column set name = 'Changed' where id % 50 = 0; delete from app.by_column where id = 3;
  insert into app.by_default values (-1);
  update app.keyless set name = 'changed' where name = 'Name 7';
  update app.parent set id = -id where id % 50 = 0 and not exists (select from app.child c where c.parent_id = parent.id);
  insert into app.parent values (1000, 'p'); update app.child set parent_id = 1000 where id < 9; delete from app.child where id = 100;
`;

export const roles = {
  path: (database: string) => `alter database "${database}" set search_path = app, tools, public`,
};

/** Read as the application reads them: by their text, and in its own search path. */
export async function contents(side: Database): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {};
  for (const name of ["by_index", "by_check", "by_column", "by_default", "keyless", "parent", "child"]) {
    const rows = await side.sql<{ line: string }>(
      `set search_path = ${path}; select t::text as line from app.${name} t order by t::text collate "C"`,
    );
    found[name] = rows.map(({ line }) => line);
  }
  return found;
}

/** What a hostile schema on the path offers: operators that fit better than the built-in ones, and namesakes of all else. */
export const hostile = `
  create schema trap; grant all on schema trap to public;
  do $do$
  declare
    one text; other text; operator text; name text;
    types text[] := array['smallint', 'integer', 'bigint', 'numeric', 'text', 'varchar', 'name', '"char"', 'oid', 'jsonb', 'tid',
      'timestamptz', 'text[]', 'integer[]', 'oid[]', 'boolean'];
  begin
    foreach one in array types loop
      execute format('create function trap.one(%s) returns text language plpgsql as $f$ begin raise exception ''captured %%'', %L; end $f$', one, one);
      foreach name in array array['count', 'sum', 'max', 'min', 'unnest', 'hashtext', 'hashtextextended', 'concat', 'coalesce', 'format',
        'array_agg', 'jsonb_agg', 'lower', 'length', 'octet_length', 'jsonb_build_array', 'array_length', 'cardinality', 'to_jsonb',
        'quote_ident', 'nextval', 'pg_relation_size', 'encode', 'current_setting', 'string_agg'] loop
        execute format('create function trap.%I(%s) returns text language plpgsql as $f$ begin raise exception ''captured %%'', %L; end $f$', name, one, name || ' ' || one);
      end loop;
      foreach other in array types loop
        foreach operator in array array['=', '<>', '<', '>='] loop
          execute format('create function trap.%I(%s, %s) returns boolean language plpgsql as $f$ begin raise exception ''captured %%'', %L; end $f$',
            'op_' || operator, one, other, one || operator || other);
          execute format('create operator trap.%s (procedure = trap.%I, leftarg = %s, rightarg = %s)', operator, 'op_' || operator, one, other);
        end loop;
        foreach operator in array array['||', '->', '->>', '+', '-', '&'] loop
          execute format('create function trap.%I(%s, %s) returns text language plpgsql as $f$ begin raise exception ''captured %%'', %L; end $f$',
            'op_' || operator, one, other, one || operator || other);
          execute format('create operator trap.%s (procedure = trap.%I, leftarg = %s, rightarg = %s)', operator, 'op_' || operator, one, other);
        end loop;
      end loop;
    end loop;
  end
  $do$;
  create domain trap.text as pg_catalog.int4; create domain trap.oid as pg_catalog.bool; create domain trap.jsonb as pg_catalog.int4;
  create domain trap.float8 as pg_catalog.bool; create domain trap.tid as pg_catalog.bool;
  create table trap.pg_class (x int); create table trap.pg_attribute (x int); create table trap.stage_1 (x int); create table trap.sync (x int);
`;
