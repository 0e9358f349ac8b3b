import { expect, test } from "vitest";

import { freePair, type Pair } from "../../support/database.ts";
import { startFollowed, type Followed } from "../../support/follow-setup.ts";

// The source's schema changes under a running sync: it stops with the table and the exact statement, goes on once that
// was run, and both sides are equal. Every case is met twice: by a runner that starts, and by one that runs.

const schema = `
  create table t (id int primary key, name varchar(10), amount numeric(8,2) default 1);
  insert into t select g, 'n' || g, g from generate_series(1, 50) g;
  create table quiet (id int primary key);`;

interface Case {
  what: string;
  ddl: string;
  /** Afterwards, so that rows of the new shape have to go through. */
  write: string;
  /** Statements that are told for the target, in order; empty where it goes on by itself. */
  target?: string[];
  source?: string[];
  reread?: boolean;
}

const cases: Case[] = [
  {
    what: "column added",
    ddl: "alter table t add column extra int",
    write: "update t set extra = id where id < 9",
    target: ['alter table "public"."t" add column "extra" integer;'],
  },
  {
    what: "column added with a default, which all rows have at once",
    ddl: "alter table t add column extra text default 'filled'",
    write: "update t set extra = 'other' where id < 9",
    target: [`alter table "public"."t" add column "extra" text default 'filled'::text;`],
  },
  {
    what: "column dropped",
    ddl: "alter table t drop column amount",
    write: "insert into t values (99, 'new')",
    target: ['alter table "public"."t" drop column "amount";'],
  },
  {
    what: "column renamed",
    ddl: "alter table t rename column amount to price",
    write: "update t set price = 5 where id < 9",
    target: ['alter table "public"."t" rename column "amount" to "price";'],
  },
  {
    what: "column retyped, with other values",
    ddl: "alter table t alter column amount type text using 'about ' || amount",
    write: "update t set amount = 'none' where id < 9",
    target: [
      'alter table "public"."t" alter column "amount" drop default, alter column "amount" type text using "amount"::text',
    ],
    reread: true,
  },
  {
    what: "column widened",
    ddl: "alter table t alter column name type varchar(30)",
    write: "update t set name = repeat('x', 25) where id < 9",
    target: ['alter table "public"."t" alter column "name" type character varying(30)'],
  },
  {
    what: "column dropped and added again with another type",
    ddl: "alter table t drop column amount, add column amount date default '2020-02-02'",
    write: "update t set amount = '2021-01-01' where id < 9",
    target: [
      'alter table "public"."t" drop column "amount";',
      `alter table "public"."t" add column "amount" date default '2020-02-02'::date;`,
    ],
  },
  {
    what: "column dropped and added again, empty",
    ddl: "alter table t drop column amount, add column amount numeric(8,2)",
    write: "update t set amount = 7 where id < 9",
    reread: true,
  },
  {
    what: "the primary key goes",
    ddl: "alter table t drop constraint t_pkey",
    write: "update t set name = 'keyless' where id < 9",
    source: ['create unique index on "public"."t" (id);'],
  },
  {
    what: "trigger disabled and enabled again",
    ddl: "alter table t disable trigger zzz_replicate_capture_2",
    write:
      "update t set name = 'unseen' where id < 9; delete from t where id = 20; insert into t values (77, 'unseen')",
    source: ['alter table "public"."t" enable always trigger zzz_replicate_capture_2;'],
    reread: true,
  },
  {
    what: "all triggers disabled for a moment",
    ddl: "alter table t disable trigger all",
    write:
      "delete from t where id = 20; alter table t enable always trigger zzz_replicate_capture_2, enable always trigger zzz_replicate_truncate_2",
    reread: true,
  },
  {
    what: "table renamed",
    ddl: "alter table t rename to t_new",
    write: "update t_new set name = 'y'; alter table t_new rename to t",
  },
  {
    what: "table rewritten",
    ddl: "vacuum full t",
    write: "update t set name = 'y' where id < 9",
  },
];

for (const isRunning of [false, true]) {
  test.for(cases)(`${isRunning ? "while it follows" : "before it starts"}: $what`, async (each) => {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, schema, { schemaChanges: "stop" });
    await pair.source.sql("update t set name = 'first' where id < 4");
    await followed.drain();
    const runner = isRunning ? run(followed) : undefined;
    // So that it guesses that the next batch is about the same table.
    const writing = runner === undefined ? undefined : await keepBusy(pair);
    await pair.source.sql(each.ddl);
    await pair.source.sql(each.write);
    const wanted = [...(each.target ?? []), ...(each.source ?? [])];
    if (wanted.length > 0) {
      const error = await (runner ?? run(followed));
      await writing?.();
      await repair(pair, error, each);
    } else if (runner !== undefined) {
      await until(pair, "select count(*) > 0 as ok from replicate.sync_table");
      await writing?.();
      running.abort();
      await runner;
    }
    await drainRepairing(followed, pair, each);
    expect(await followed.differences()).toEqual([]);
    expect(followed.events.some((event) => event.type === "table-reread")).toBe(each.reread === true);
    await pair.source.sql("update t set name = 'last'; insert into quiet values (1)");
    expect(await followed.differences()).toEqual([]);
  });
}

test("a table is dropped: told by name; init lets it go, and the others go on", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { schemaChanges: "stop" });
  await pair.source.sql("drop table t; insert into quiet values (1)");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "TABLE_SHAPE_CHANGED",
    problems: [{ subject: "public.t", message: expect.stringContaining("dropped") as string }],
  });
  await followed.sync.init();
  expect(await followed.differences(["public.quiet"])).toEqual([]);
  await followed.sync.drop();
  expect(await pair.source.sql("select 1 from pg_namespace where nspname = 'replicate'")).toEqual([]);
});

test("a table is replaced by another of its name", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { schemaChanges: "stop" });
  await pair.source.sql(
    "alter table t rename to t_old; create table t (like t_old including all); insert into t values (1, 'new')",
  );
  await expect(followed.drain()).rejects.toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
});

test("a trigger of ours is dropped: told, with what to do", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, schema, { schemaChanges: "stop" });
  await pair.source.sql("drop trigger zzz_replicate_capture_2 on t; update t set name = 'unseen'");
  await expect(followed.drain()).rejects.toMatchObject({
    code: "CAPTURE_BROKEN",
    problems: [{ subject: "public.t", message: expect.stringContaining("gone") as string }],
  });
});

test("columns that are generated on the target alone, and columns in another order", async () => {
  await using pair = await freePair();
  await pair.target.sql(
    "create table s (b text, a int primary key, twice int generated always as (a * 2) stored, c text default 'c')",
  );
  await pair.target.sql(schema.replaceAll(/insert into.*\n/g, "\n"));
  await using followed = await startFollowed(
    { source: pair.source, target: { url: pair.target.url, sql: async () => await Promise.resolve([]) } },
    "create table s (a int primary key, b text)",
    { tables: ["public.s"] },
  );
  await pair.source.sql("insert into s values (1, 'one'), (2, 'two'); update s set b = 'zwei' where a = 2");
  await followed.drain();
  expect(await pair.target.sql("select a, b, twice, c from s order by a")).toEqual([
    { a: 1, b: "one", twice: 2, c: "c" },
    { a: 2, b: "zwei", twice: 4, c: "c" },
  ]);
});

interface Stopped {
  code: string;
  problems: readonly { subject: string; remedy?: string }[];
}

/** Follows until it stops by itself; resolves with the error it stopped with. */
async function run(followed: Followed): Promise<Stopped | undefined> {
  try {
    running = new AbortController();
    for await (const batch of followed.sync.follow({ signal: running.signal })) void batch;
    return undefined;
  } catch (error) {
    return error as Stopped;
  }
}

/** Ends what `run` began last. */
let running = new AbortController();

async function until(pair: Pair, query: string): Promise<void> {
  for (;;) {
    const [row] = await pair.target.sql<{ ok: boolean }>(query);
    if (row?.ok === true) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Writes one row without a pause, once the runner has taken some of it in. Returns what ends it. */
async function keepBusy(pair: Pair): Promise<() => Promise<void>> {
  for (let n = 1; n <= 5; n += 1) {
    await pair.source.sql(`update t set name = 'busy${n}' where id = 30`);
    await until(pair, `select name = 'busy${n}' as ok from t where id = 30`);
  }
  const client = await pair.source.client();
  let isEnding = false;
  const writing = (async () => {
    // The table may be away under another name for a moment.
    while (!isEnding) await client.query("update t set id = id where id = 30").catch(() => undefined);
  })();
  const [now] = await pair.target.sql<{ batches: string }>("select batches from replicate.sync");
  await until(pair, `select batches > ${Number(now?.batches) + 10} as ok from replicate.sync`);
  return async () => {
    isEnding = true;
    await writing;
  };
}

/** Runs what the error says, which has to be what the case expects. */
async function repair(pair: Pair, error: Stopped | undefined, each: Case): Promise<void> {
  expect(error?.code).toMatch(/^(TABLE_SHAPE_CHANGED|CAPTURE_BROKEN)$/);
  for (const { subject, remedy } of error?.problems ?? []) {
    expect(subject).toBe("public.t");
    const side = (each.source ?? []).some((wanted) => remedy?.startsWith(wanted)) ? pair.source : pair.target;
    const wanted = [...(each.target ?? []), ...(each.source ?? [])].find((text) => remedy?.startsWith(text));
    expect(wanted, `${remedy}`).toBeDefined();
    await side.sql(String(remedy));
  }
}

async function drainRepairing(followed: Followed, pair: Pair, each: Case): Promise<void> {
  for (let attempt = 0; ; attempt += 1) {
    try {
      await followed.drain();
      return;
    } catch (error) {
      if (attempt === 3) throw error;
      await repair(pair, error as Stopped, each);
    }
  }
}
