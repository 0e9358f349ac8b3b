import { expect, test } from "vitest";

import { sleepAt } from "../support/asleep.ts";
import { compareDatabases } from "../support/compare.ts";
import { drain, prepareCutover } from "../support/cutover-setup.ts";
import { freePair } from "../support/database.ts";

// Rows that come and go without a delta just before a cutover, or while the source is fenced: whoever follows has not looked
// at the tables since. The cutover must not take place without them.

interface Change {
  /** On the source, after the last look. */
  readonly happens: string;
  /** On the target, once the cutover has refused. */
  readonly there?: string;
}

const capture = (table: string): string => `
  do $$ declare t record; begin
    for t in select tgname from pg_trigger where tgrelid = '${table}'::regclass and tgname like 'zzz_replicate%'
    loop execute format('alter table ${table} disable trigger %I', t.tgname); end loop;
  end $$;`;
const again = (table: string, how: string): string =>
  capture(table).replaceAll("disable trigger", `${how} trigger`);

const changes: Record<string, Change> = {
  "its capture is off for a while": {
    happens: `${capture("account")} update account set balance = 7 where id = 1; ${again("account", "enable always")}`,
  },
  "its capture is on for some writers only": {
    happens: `${again("account", "enable")} set session_replication_role = replica;
      update account set balance = 7 where id = 1; reset session_replication_role; ${again("account", "enable always")}`,
  },
  "the capture of a partition is off for a while": {
    happens: `${capture("log_1")} update log_1 set what = 'unseen' where id = 1; ${again("log_1", "enable always")}`,
  },
  "a partition with rows is attached": {
    happens: `create table log_3 (id bigint not null, at date not null, what text, primary key (id, at));
      insert into log_3 values (1, '2022-02-02', 'unseen');
      alter table log attach partition log_3 for values from ('2022-01-01') to ('2023-01-01')`,
    there: "create table log_3 partition of log for values from ('2022-01-01') to ('2023-01-01')",
  },
  "a partition is dropped": {
    happens: "drop table log_2",
    there: "drop table log_2",
  },
  "a column comes with a value for all rows": {
    happens: "alter table account add column colour text default 'red'",
    there: "alter table account add column colour text",
  },
  "rows are rewritten": {
    happens: "alter table touched alter column times type bigint using times + 1000",
    there: "alter table touched alter column times type bigint",
  },
};

/** Before the fence, before the changes are compared, and before the target is opened. */
const steps = ["cutover.begun", "cutover.drained", "cutover.restored"];

/** What writes is refused once the fence stands. */
const isPossible = (step: string, { happens }: Change): boolean =>
  step === "cutover.begun" || !/update (account|log_1) set/.test(happens);

const cases = Object.entries(changes).flatMap(([name, change]) =>
  steps.filter((step) => isPossible(step, change)).map((step) => ({ name, step, ...change })),
);

test.for(cases)("$name, at $step", { timeout: 120_000 }, async ({ step, happens, there }) => {
  await using pair = await freePair({ leaks: "ignore" });
  const { sync } = await prepareCutover(pair);
  await using _ = sync;
  const orders = {
    sync: { name: "shop", source: pair.source.url, target: pair.target.url, env: {}, keylessLimit: 0 },
    verbs: ["cutover" as const],
  };
  const switching = await sleepAt(step, orders);
  try {
    await pair.source.sql(happens);
    switching.kill("SIGCONT");
    const { code } = await switching.ended;
    // Where it happened early, whoever follows may have had time to look again, and then it is a switch like any other.
    if (code !== 0) {
      expect(switching.complaint()).toContain("CAPTURE_BROKEN");
      expect(switching.complaint()).toContain("everything was undone");
      expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
      if (there !== undefined) await pair.target.sql(there);
      await drain(sync);
      expect((await sync.cutover()).result).toBe("switched");
    } else expect(step).toBe("cutover.begun");
  } finally {
    switching.kill("SIGKILL");
  }
  const tables = ["public.account", "public.log", "public.touched", "public.entry"];
  expect((await compareDatabases(pair.source.url, pair.target.url, tables)).differences).toEqual([]);
});

test("a table is created after the rehearsal", { timeout: 120_000 }, async () => {
  await using pair = await freePair({ leaks: "ignore" });
  const { sync } = await prepareCutover(pair);
  await using _ = sync;
  const orders = {
    sync: { name: "shop", source: pair.source.url, target: pair.target.url, env: {}, keylessLimit: 0 },
    verbs: ["cutover" as const],
  };
  const switching = await sleepAt("cutover.drained", orders);
  try {
    await pair.source.sql("create table newcomer (id int primary key); insert into newcomer values (1)");
    switching.kill("SIGCONT");
    expect((await switching.ended).code).toBe(1);
    expect(switching.complaint()).toContain("TABLE_NOT_REPLICATED");
    expect(switching.complaint()).toContain("public.newcomer");
  } finally {
    switching.kill("SIGKILL");
  }
  expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
});
