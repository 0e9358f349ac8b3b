import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync, type Sync } from "../../../src/index.ts";
import { replicate, start } from "../../support/replicate.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { until } from "../../support/until.ts";
import { schemaOf } from "../../support/copy-setup.ts";
import { drain, prepareCutover } from "../../support/cutover-setup.ts";

// What other commands, signals and people find while a sync is being switched, and afterwards.

/** Restoring it takes so many seconds, in which the source is fenced. */
const slowly = (seconds: number): string => `
  insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements)
  select 'shop', capture_id, 'trigger', 'slow', 'public.touched', 60, array['select pg_sleep(${seconds})']
  from replicate.sync_table where source_name = 'touched'`;

const isRefused = async ({ source }: Pick<Pair, "source">): Promise<boolean> =>
  await source
    .sql("update touched set times = times where false")
    .then(() => false, (error: { code?: string }) => error.code === "25006"); // prettier-ignore

const verbs: Readonly<Record<string, (sync: Sync) => Promise<unknown>>> = {
  drop: async (sync) => await sync.drop(),
  "drop of the source": async (sync) => await sync.drop({ sourceOnly: true }),
  "drop of the target": async (sync) => await sync.drop({ targetOnly: true }),
  init: async (sync) => await sync.init(),
  copy: async (sync) => await sync.copy(),
  "copy anew": async (sync) => await sync.copy({ restart: true, overwrite: true }),
  schema: async (sync) => await sync.schema(),
  interleave: async (sync) => await sync.interleave({ shares: 2 }),
  cutover: async (sync) => await sync.cutover(),
  undo: async (sync) => await sync.cutover({ undo: true }),
  finish: async (sync) => await sync.cutover({ finish: true }),
  rollback: async (sync) => await sync.rollback(),
};

for (const step of ["preparing", "fencing", "opening"] as const) {
  test(
    `what is refused while a cutover is ${step}, before anything is changed`,
    { timeout: 180_000 },
    async () => {
      await using pair = await freePair();
      await using prepared = await prepareCutover(pair);
      const { sync } = prepared;
      await using other = await openSync({
        name: "shop",
        source: pair.source.url,
        target: pair.target.url,
        env: {},
      });
      const writer = await pair.source.client();
      if (step === "preparing") await writer.query("begin; insert into touched values (50)");
      if (step === "fencing") await pair.target.sql(slowly(20));
      const switching = sync.cutover(step === "opening" ? { onOpen: "sleep 20" } : {});
      const reached = { preparing: "preparing the fence", fencing: "restoring constraints and triggers", opening: "running the command given" }; // prettier-ignore
      await until(`it is ${step}`, () =>
        prepared.events.some((event) => event.type === "switch-step" && event.step === reached[step]),
      );
      await sleep(step === "preparing" ? 1000 : 300);
      const before = [await schemaOf(pair.source), await schemaOf(pair.target)];
      for (const [name, call] of Object.entries(verbs)) {
        const outcome = await call(other).then(
          () => "done",
          (error: { code?: string }) => error.code,
        );
        expect([name, outcome]).toEqual([name, expect.stringMatching(/^(RUNNER_ACTIVE|CUTOVER_STATE)$/)]);
      }
      expect([await schemaOf(pair.source), await schemaOf(pair.target)]).toEqual(before);
      await writer.query("rollback");
      expect((await switching).result).toBe("switched");
      await pair.target.sql(`insert into touched values (60)`);
      // There is a way back, and it works.
      expect((await sync.rollback()).result).toBe("switched");
      expect(await pair.source.sql(`select id from touched where id = 60`)).toHaveLength(1);
    },
  );
}

test("what a cutover that was interrupted does not allow", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  await pair.target.sql(
    `insert into replicate.switch (sync, way, step, is_reversible) values ('shop', 'cutover', 'preparing', true)`,
  );
  const interrupted = { code: "CUTOVER_STATE", hint: expect.stringContaining("--undo") as unknown };
  for (const name of ["init", "copy", "copy anew", "schema", "interleave"])
    await expect(verbs[name]?.(sync)).rejects.toMatchObject(interrupted);
  await sync.cutover({ undo: true });
  await sync.init();
});

test.for<[first: NodeJS.Signals, second: NodeJS.Signals]>([
  ["SIGTERM", "SIGTERM"],
  ["SIGINT", "SIGTERM"],
  ["SIGTERM", "SIGINT"],
])("%s and %s while the source is fenced: it is opened again", async ([first, second]) => {
  await using pair = await freePair({ leaks: "ignore" });
  await using prepared = await prepareCutover(pair);
  await pair.target.sql(slowly(60));
  const running = start(["cutover", "--yes", "--name", "shop"], {
    env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
  });
  await running.says("restoring constraints");
  expect(await isRefused(pair)).toBe(true);
  for (const signal of [first, second, first, second]) running.child.kill(signal);
  const finished = await running.finished;
  expect(finished).toMatchObject({ code: 3, signal: null });
  expect(finished.stderr).toContain("opening the old side again");
  expect(await isRefused(pair)).toBe(false);
  expect(await prepared.sync.status()).toMatchObject({ switch: null, fence: null });
  await pair.source.sql("insert into touched values (70)");
  await pair.target.sql("delete from replicate.deferred where object_name = 'slow'");
  await drain(prepared.sync);
  expect(await pair.target.sql("select id from touched where id = 70")).toHaveLength(1);
});

test("an old source that is kept closed says where the database is, until it is opened", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const before = await schemaOf(pair.source);
  const env = { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url };
  await prepared.sync.cutover();
  const said = async (): Promise<string> =>
    await pair.source.sql("update touched set times = 1").then(
      () => "",
      (error: { message: string; hint?: string }) => `${error.message}; ${error.hint ?? ""}`,
    );
  expect(await said()).toContain("the database has moved to another server");
  expect(await said()).not.toMatch(/try again|127\.0\.0\.1|postgresql:/);
  const closed = await replicate(["cutover", "--finish", "--keep-closed", "--yes", "--name", "shop"], {
    env,
  });
  expect(closed).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("the source refuses writes until") as unknown,
  });
  expect(closed.stderr).not.toContain("still connected");
  expect(await said()).toContain("the database has moved to another server");
  expect(await pair.target.sql(`select 1 from pg_namespace where nspname = 'replicate'`)).toEqual([]);
  const opened = await replicate(["drop", "--source-only", "--yes", "--name", "shop"], { env });
  expect(opened).toMatchObject({ code: 0 });
  await pair.source.sql("update touched set times = 1");
  expect(await pair.source.sql(`select 1 from pg_namespace where nspname = 'replicate'`)).toEqual([]);
  expect(await schemaOf(pair.source)).not.toContain("fence");
  expect(before).toContain("replicate");
});

test("who is still connected to the old source is named when it takes writes again", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  await prepared.sync.cutover();
  const left = await pair.source.client();
  await left.query("set application_name = 'the nightly job'");
  const finished = await replicate(["cutover", "--finish", "--yes", "--name", "shop"], {
    env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
  });
  expect(finished).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("the source takes writes again") as unknown,
  });
  expect(finished.stderr).toMatch(/still connected to it: .*pid \d+ of .*\(the nightly job\)/);
  expect(await isRefused(pair)).toBe(false);
});

test("what is owed after the cutover is the old source's; keys are validated once the target is open", async () => {
  await using pair = await leastPrivilegedPair();
  // What is done to a constraint below stands for what a crash leaves, and is not to travel.
  const sides = { source: pair.source, target: pair.target };
  await using prepared = await prepareCutover(sides, { schemaChanges: "stop" });
  const { sync, events } = prepared;
  expect((await sync.status()).owed).toMatchObject({ side: "target" });
  await sync.cutover();
  const at = (is: (event: (typeof events)[number]) => boolean): number => events.findIndex(is);
  const open = at((event) => event.type === "fence" && event.state === "open");
  const validated = at((event) => event.type === "constraint-validated");
  expect(open).toBeGreaterThan(-1);
  expect(validated).toBeGreaterThan(open);
  const invalid = `select conname from pg_constraint where contype = 'f' and not convalidated`;
  expect(await pair.target.asAdmin(invalid)).toEqual([]);
  for await (const batch of sync.follow({ once: true })) void batch;
  const { owed } = await sync.status();
  expect(owed.side).toBe("source");
  expect(owed.open).toBeGreaterThan(0);
  const { stdout } = await replicate(["status", "--name", "shop"], {
    env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
  });
  expect(stdout).toMatch(/deferred +\d+ indexes, constraints and triggers of the source/);
  // Not validated yet when it is taken away again: it is validated when it comes back.
  await pair.target.asAdmin(`update replicate.deferred set validated_at = null where kind = 'foreign-key'`);
  await pair.target.sql(`alter table entry drop constraint entry_account_id_fkey,
    add constraint entry_account_id_fkey foreign key (account_id) references account on delete cascade not valid`);
  await sync.rollback();
  await drain(sync);
  await sync.drop();
  for (const side of [pair.source, pair.target]) {
    expect(await side.asAdmin(invalid)).toEqual([]);
    expect(
      await side.asAdmin(
        `select conname from pg_constraint where contype = 'f' and conrelid = 'entry'::regclass`,
      ),
    ).toHaveLength(1);
  }
});
