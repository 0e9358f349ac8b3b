import { expect, test } from "vitest";

import { openSync, type Sync, type SyncOptions } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { schemaOf } from "../../support/copy-setup.ts";
import { onBoth } from "../../support/follow-setup.ts";

// Drop leaves both schemas byte for byte as they were, whatever the sync had come to.

const schema = `
  create table parent (id int primary key, name text not null);
  comment on table parent is 'of all'; comment on index parent_pkey is 'the key';
  create index parent_name on parent (lower(name) desc) include (id) where id > 0;
  create table child (id bigint generated always as identity primary key, parent_id int references parent on delete cascade,
    place int unique deferrable, during int4range, exclude using gist (during with &&));
  create table loose (a int, b text, unique (a), check (a > 0) no inherit);
  create table nn (a int not null unique, b text); alter table nn replica identity using index nn_a_key;
  create table m (day date, id int, primary key (day, id)) partition by range (day);
  create table m_1 partition of m for values from ('2020-01-01') to ('2021-01-01');
  create table m_2 partition of m default;
  create function touch() returns trigger language plpgsql as $$ begin return new; end $$;
  create trigger touched before insert or update on parent for each row execute procedure touch();
  create trigger zzzz_last after delete on child for each row execute procedure touch();
  alter table child disable trigger zzzz_last;
  create rule quiet as on delete to loose do instead nothing;
  create view seen as select * from parent;`;
const tables = ["public.parent", "public.child", "public.nn", "public.m"];
const rows = `insert into parent select g, 'p' || g from generate_series(1, 500) g;
  insert into child (parent_id, place, during) select g, g, int4range(g, g + 1) from generate_series(1, 500) g;
  insert into nn select g, 'n' from generate_series(1, 500) g;
  insert into m select date '2020-06-01' + g, g from generate_series(1, 500) g`;

async function drain(sync: Sync): Promise<void> {
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
}

const phases: readonly {
  phase: string;
  options?: Partial<SyncOptions>;
  run: (sync: Sync, pair: Pair) => Promise<unknown>;
}[] = [
  { phase: "init", run: async (sync) => await sync.init() },
  {
    phase: "statement triggers",
    options: { overrides: { "public.*": { capture: "statement" } } },
    run: async (sync) => await sync.init(),
  },
  {
    phase: "an init that was stopped halfway",
    run: async (sync) => {
      const abort = new AbortController();
      let installed = 0;
      const onEvent = ({ type }: { type: string }): void => {
        if (type === "capture-installed" && (installed += 1) === 2) abort.abort();
      };
      await expect(sync.init({ signal: abort.signal, onEvent })).rejects.toMatchObject({ code: "ABORTED" });
    },
  },
  {
    phase: "a copy that was stopped halfway",
    run: async (sync) => {
      await sync.init();
      const abort = new AbortController();
      const onEvent = ({ type }: { type: string }): void => {
        if (type === "table-copied") abort.abort();
      };
      await sync.copy({ jobs: 1, signal: abort.signal, onEvent }).catch(() => undefined);
    },
  },
  {
    phase: "copy",
    run: async (sync) => {
      await sync.init();
      await sync.copy();
    },
  },
  {
    phase: "following",
    run: async (sync, pair) => {
      await sync.init();
      await sync.copy();
      await drain(sync);
      await pair.source.sql(
        "update parent set id = id + 1000 where id < 10 and not exists (select 1 from child where parent_id = parent.id); truncate m; delete from child where id = 3",
      );
      await drain(sync);
      await drain(sync);
    },
  },
  {
    phase: "changes that were never applied",
    run: async (sync, pair) => {
      await sync.init();
      await sync.copy();
      await pair.source.sql("delete from child; truncate m");
    },
  },
];

test.for(phases)("after $phase", async ({ run, options }) => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  const before = [await schemaOf(pair.source), await schemaOf(pair.target)];
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    tables,
    env: {},
    ...options,
  });
  await run(sync, pair);
  expect(
    (await pair.source.sql("select 1 from pg_trigger where tgname like 'zzz\\_rep%'")).length,
  ).toBeGreaterThan(0);

  const plan = await sync.drop({ dryRun: true });
  const between = await pair.source.sql(
    "select count(*) from pg_class where relnamespace = 'replicate'::regnamespace",
  );
  expect(between).not.toEqual([{ count: "0" }]);
  const done = await sync.drop();
  expect(done.removed).toEqual(plan.removed);
  // Where only some tables were copied, rows may lack their partners; that is said, and can be repaired.
  for (const { table, constraint } of done.leftInvalid) {
    await pair.target.sql(`delete from ${table}; alter table ${table} validate constraint ${constraint}`);
  }
  expect([await schemaOf(pair.source), await schemaOf(pair.target)]).toEqual(before);
  for (const side of [pair.source, pair.target]) {
    expect(await side.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
    expect(
      await side.sql(
        "select 1 from pg_proc p join pg_namespace n on n.oid = pronamespace where nspname = 'replicate'",
      ),
    ).toEqual([]);
  }
  // And the application goes on.
  await pair.source.sql("insert into parent values (5000, 'after'); insert into m values ('2020-01-01', 1)");
});

test("one side is gone", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  const before = [await schemaOf(pair.source), await schemaOf(pair.target)];
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, tables, env: {} });
  await sync.init();
  await sync.copy();
  await sync.drop({ sourceOnly: true });
  expect(await schemaOf(pair.source)).toBe(before[0]);
  expect(await pair.target.sql("select name from replicate.sync")).toEqual([{ name: "default" }]);
  // A source that knows nothing of what the target has is not taken for its source.
  await expect(sync.init()).rejects.toMatchObject({ code: "SOURCE_LOST" });
  await sync.drop({ targetOnly: true });
  expect(await schemaOf(pair.target)).toBe(before[1]);
});

test("what was dropped or detached on the source meanwhile is no obstacle", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, tables, env: {} });
  await sync.init();
  await sync.copy();
  await drain(sync);
  await pair.source.sql(
    "drop table child; alter table m detach partition m_1; alter table nn rename to nn_2",
  );
  await sync.drop();
  expect(await pair.source.sql("select 1 from pg_trigger where tgname like 'zzz\\_rep%'")).toEqual([]);
  expect(await pair.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
});

test("a long transaction on the source is waited for, and nobody waits behind", async () => {
  await using pair = await freePair();
  await onBoth(pair, "create table t (id int primary key)");
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  const long = await pair.source.client();
  await long.query("begin; insert into t values (1)");
  let isDone = false;
  const drop = sync.drop().then(() => (isDone = true));
  for (let id = 2; id < 80; id += 1) {
    await pair.source.sql("set lock_timeout = '4s'; select pg_sleep(0.02)");
    await pair.source.sql(`insert into t values (${id})`);
  }
  expect(isDone).toBe(false);
  await long.query("commit");
  await drop;
  expect(await pair.source.sql("select 1 from pg_trigger where tgrelid = 't'::regclass")).toEqual([]);
});
