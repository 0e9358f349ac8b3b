import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { connect } from "../../support/admin.ts";
import { compareDatabases } from "../../support/compare.ts";
import { freePair, type Pair } from "../../support/database.ts";
import { leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { schemaOf } from "../../support/copy-setup.ts";
import {
  assertNothingLost,
  drain,
  openPrepared,
  prepareCutover,
  rows,
  schema,
  startApplication,
} from "../../support/cutover-setup.ts";
import { onBoth } from "../../support/follow-setup.ts";

async function differences(pair: { source: { url: string }; target: { url: string } }): Promise<unknown[]> {
  return (await compareDatabases(pair.source.url, pair.target.url)).differences;
}

const schemasOf = async (pair: Pair): Promise<string[]> => [
  await schemaOf(pair.source),
  await schemaOf(pair.target),
];

test("a cutover under writes, and back: nothing is lost or doubled, ids go on, both sides are equal", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  const before = await schemasOf(pair);
  await pair.source.sql(rows);
  const { sync } = await openPrepared(pair);
  await using _ = sync;
  const stop = new AbortController();
  const application = startApplication(pair.source.url);
  const following = (async () => {
    for await (const batch of sync.follow({ signal: stop.signal })) void batch;
  })();
  try {
    await sleep(1000);
    const report = await sync.cutover();
    expect(report).toMatchObject({ result: "switched", primary: "target", leftInvalid: [] });
    expect(report.sequences?.missing).toEqual([]);
    expect((await sync.status()).phase).toBe("cut-over");
    expect((await sync.cutover()).result).toBe("nothing-to-do");
    application.switchTo(pair.target.url);
    await sleep(1500);
    expect(application.refused).toBeGreaterThan(0);

    // The writes of the new side are kept.
    const back = await sync.rollback();
    expect(back).toMatchObject({ result: "switched", primary: "source" });
    application.switchTo(pair.source.url);
    await sleep(1000);
    await expect.poll(async () => (await sync.status()).phase, { timeout: 30_000 }).toBe("following");
  } finally {
    await application.stop();
    await sleep(100);
    stop.abort();
    await following;
  }
  await drain(sync);
  await assertNothingLost(pair.source, application);
  await assertNothingLost(pair.target, application);
  expect(await differences(pair)).toEqual([]);
  // Every entry fired the trigger of the side where it was written, once.
  expect(
    await pair.source.sql(`select times - (select count(*)::int from entry) as extra from touched`),
  ).toEqual([{ extra: 0 }]);
  expect(await sync.cutover({ finish: true })).toMatchObject({ result: "finished", primary: "source" });
  expect((await sync.status()).switch).toBeNull();
  await pair.target.sql(`insert into touched values (2)`);
  await sync.drop();
  expect(await schemasOf(pair)).toEqual(before);
});

test("without superuser on either side: constraints and triggers come back for whoever is written to", async () => {
  await using pair = await leastPrivilegedPair();
  const { sync } = await prepareCutover(pair);
  await using _ = sync;
  const application = startApplication(pair.source.writer.url);
  try {
    await sleep(500);
    await sync.cutover({ margin: 7 });
    application.switchTo(pair.target.writer.url);
    await sleep(500);
    const batches: number[] = [];
    for await (const { rows: applied } of sync.follow({ once: true })) batches.push(applied);
    expect(batches.length).toBeGreaterThan(0);
    await sync.rollback();
    application.switchTo(pair.source.writer.url);
    await sleep(300);
  } finally {
    await application.stop();
  }
  await drain(sync);
  await assertNothingLost(pair.source, application);
  await assertNothingLost(pair.target, application);
  expect(await sync.drop()).toMatchObject({ leftInvalid: [] });
  for (const side of [pair.source, pair.target]) {
    await expect(
      side.sql(`insert into entry (account_id, writer, number, amount) values (-1, 0, 0, 0)`),
    ).rejects.toThrow(/foreign key/);
    const [before] = await side.sql<{ times: number }>(`select times from touched`);
    await side.sql(`insert into entry (account_id, writer, number, amount) values (1, 0, 0, 0)`);
    expect(await side.sql(`select times from touched`)).toEqual([{ times: (before?.times ?? 0) + 1 }]);
  }
});

test("the fence refuses everybody, and lets reads pass", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  await pair.source.sql(`
    create table outside (id int primary key);
    create table parent (id int, what text);
    create table child (primary key (id)) inherits (parent);
    create view accounts as select * from account`);
  await pair.target.sql(
    `create table parent (id int, what text); create table child (primary key (id)) inherits (parent)`,
  );
  await pair.source.sql(`insert into child values (1, 'a')`);
  await using other = await openSync({
    name: "other", source: pair.source.url, target: pair.target.url, tables: ["child"], env: {},
  }); // prettier-ignore
  await other.init();
  await other.copy();
  await other.cutover({ reverse: false });
  const { rehearsal } = await sync.cutover({ rehearse: true });
  // What the other sync takes is not missing.
  expect(rehearsal?.blockers.map(({ subject }) => subject)).toEqual(["public.outside", "public.parent"]);
  await sync.cutover({ acceptUnreplicated: true });
  const refused = [
    `insert into account (name) values ('x')`,
    `insert into account (name) select 'x' where false`,
    `update account set balance = 0 where id = 1`,
    `update accounts set balance = 0 where id = 1`,
    `delete from account where id = 2`,
    `truncate account cascade`,
    `copy touched from stdin`,
    `insert into log values (1, '2020-01-01', 'x') on conflict do nothing`,
    `insert into log_1 values (-1, '2020-01-02', 'x')`,
    `truncate log_2`,
    `update log_2 set what = 'y'`,
    `set session_replication_role = replica; update touched set times = 0`,
    `update parent set what = 'b'`,
    `delete from parent where id = 1`,
  ];
  for (const statement of refused) {
    const client = await pair.source.client();
    const failure: unknown = await client.query(statement).catch((error: unknown) => error);
    expect([statement, (failure as { code?: string }).code]).toEqual([statement, "25006"]);
    expect((failure as Error).message).toMatch(/has moved to another server with sync (shop|other)/);
    await client.end();
  }
  expect(await pair.source.sql(`select count(*)::int as n from account`)).toEqual([{ n: 200 }]);
  await pair.source.sql(`insert into outside values (1); insert into parent values (2, 'own')`);
  await other.drop();
  await sync.drop();
  await pair.source.sql(
    `insert into touched values (7); update parent set what = 'c'; insert into log_1 values (-1, '2020-01-02', 'x')`,
  );
});

test("a rehearsal changes nothing and says what it would take", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  const before = await schemasOf(pair);
  const { rehearsal, result } = await sync.cutover({ rehearse: true });
  expect(result).toBe("rehearsed");
  expect(rehearsal?.blockers).toEqual([]);
  expect(rehearsal?.fenceSeconds).toBeGreaterThan(0);
  expect(rehearsal?.parts.map(({ step }) => step)).toContain("drain");
  expect(await schemasOf(pair)).toEqual(before);
  expect((await sync.status()).switch).toBeNull();

  const writer = await pair.source.client();
  await writer.query(`begin; update touched set times = 5`);
  await sleep(2500);
  const warned = await sync.cutover({ rehearse: true });
  expect(warned.rehearsal?.warnings[0]?.remedy).toMatch(/pg_terminate_backend/);
  await pair.target.sql(`alter table touched drop constraint touched_pkey`);
  const blocked = await sync.cutover({ rehearse: true });
  expect(blocked.rehearsal?.blockers).toMatchObject([{ subject: "public.touched" }]);
  await expect(sync.cutover()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  await writer.query("rollback");
});

test("a cutover that takes too long is undone", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  const before = await schemaOf(pair.source);
  await pair.source.sql(rows);
  const { sync } = await openPrepared(pair);
  await using _ = sync;
  const state = await schemasOf(pair);
  // Nobody can restore the constraint while the table is in use.
  await pair.target
    .sql(`insert into replicate.deferred (sync, capture_id, kind, object_name, table_name, stage, statements)
    select 'shop', capture_id, 'trigger', 'slow', 'public.touched', 60, array['lock table public.touched in access exclusive mode', 'select pg_sleep(100)'] from replicate.sync_table where source_name = 'touched'`);
  const application = startApplication(pair.source.url);
  try {
    await expect(sync.cutover({ timeoutMs: 1500 })).rejects.toMatchObject({
      code: "CUTOVER_TIMEOUT",
      message: expect.stringMatching(/everything was undone/) as unknown,
    });
    const { refused } = application;
    expect(refused).toBeGreaterThan(0);
    await sleep(300);
    expect(await sync.status()).toMatchObject({ switch: null, fence: null });
  } finally {
    await application.stop();
  }
  await pair.target.sql(`delete from replicate.deferred where object_name = 'slow'`);
  expect((await schemasOf(pair))[0]).toBe(state[0]);
  await drain(sync);
  await assertNothingLost(pair.target, application);
  expect(await differences(pair)).toEqual([]);
  await sync.drop();
  expect(await schemaOf(pair.source)).toBe(before);
});

test("a writer who does not end keeps the fence from being raised, and nobody waits for it", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  const writer = await pair.source.client();
  await writer.query(`begin; insert into touched values (50)`);
  const application = startApplication(pair.source.url);
  await expect(sync.cutover({ lockBudgetMs: 1500 })).rejects.toMatchObject({ code: "LOCK_NOT_AVAILABLE" });
  await application.stop();
  expect(application.refused).toBe(0);
  await writer.query("rollback");
  expect((await sync.status()).fence).toBeNull();
  expect((await sync.cutover()).result).toBe("switched");
});

test("sides that are not equal are not switched", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  await pair.target.sql(`update account set name = 'tampered' where id = 5`);
  await expect(sync.cutover()).rejects.toMatchObject({ code: "VERIFY_DIFFERENT" });
  // Not seen by a comparison before the fence, but changed since.
  await pair.target
    .sql(`create function spoil() returns trigger language plpgsql as $$ begin new.times := 99; return new; end $$;
    create trigger spoil before insert or update on touched for each row execute procedure spoil();
    alter table touched enable always trigger spoil`);
  const change = (async () => {
    while (
      !prepared.events.some(
        (event) => event.type === "switch-step" && event.step === "preparing the reverse replication",
      )
    ) {
      await sleep(5);
    }
    await sleep(300);
    await pair.source.sql(`update touched set times = 3`);
  })();
  await expect(sync.cutover({ verify: false })).rejects.toMatchObject({ code: "VERIFY_DIFFERENT" });
  await change;
  expect((await sync.status()).fence).toBeNull();
  await pair.source.sql(`update touched set times = 4`);
});

test("a runner that has not noticed the switch cannot bring what is old to the new side", async () => {
  await using pair = await freePair();
  const { sync } = await prepareCutover(pair);
  await using _ = sync;
  // What a runner of that way knows and would move on from.
  const known = async (side: Pair["source"], way: string): Promise<string> => {
    const [at] = await side.sql<{ position: string; token: string }>(
      `select position, token from replicate.sync where name = '${way}'`,
    );
    return `select replicate.advance('${way}', '${at?.position}', '${at?.token}', '${at?.position}', '${at?.token}', '{}')`;
  };
  const forward = await known(pair.target, "shop");
  await pair.target.sql(forward);
  await sync.cutover();
  await expect(pair.target.sql(forward)).rejects.toMatchObject({ code: "RE004" });
  const reverse = await known(pair.source, "shop.reverse");
  await pair.source.sql(reverse);
  await sync.rollback();
  await expect(pair.source.sql(reverse)).rejects.toMatchObject({ code: "RE004" });
  // What is undone is open again.
  await pair.source.sql("insert into touched values (5)");
  await drain(sync);
  expect(await differences(pair)).toEqual([]);
});

test("the command given runs with the way to the new side in its environment", async () => {
  const folder = await mkdtemp(join(tmpdir(), "replicate-hook-"));
  await using pair = await leastPrivilegedPair();
  await using prepared = await prepareCutover(pair);
  const { sync, events } = prepared;
  const file = join(folder, "said");
  await expect(sync.cutover({ onOpen: "exit 3" })).rejects.toMatchObject({ code: "HOOK_FAILED" });
  expect(await sync.status()).toMatchObject({ phase: "cut-over", switch: { step: "open", isHooked: false } });
  await expect(sync.cutover({ undo: true })).rejects.toMatchObject({ code: "CUTOVER_STATE" });
  await sync.cutover({
    onOpen: `echo switching; printf '%s\\n' "$REPLICATE_TARGET" "$PGPASSWORD" "$PGUSER" > ${file}`,
  });
  const [url, password, user] = (await readFile(file, "utf8")).split("\n");
  expect([password, user]).toEqual([pair.target.owner.password, pair.target.owner.name]);
  const client = await connect((url ?? "").replace("sslmode=prefer", "sslmode=disable"));
  expect((await client.query(`select count(*)::int as n from account`)).rows).toEqual([{ n: 200 }]);
  await client.end();
  expect(events).toContainEqual({ type: "hook-said", line: "switching" });
  expect((await sync.status()).switch?.step).toBe("open");
  await rm(folder, { recursive: true });
});

test("the end of the rollback window removes everything; without a way back there is nothing to follow", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  const before = await schemasOf(pair);
  await pair.source.sql(rows);
  const { sync } = await openPrepared(pair);
  await using _ = sync;
  await expect(sync.cutover({ finish: true })).rejects.toMatchObject({ code: "CUTOVER_STATE" });
  await expect(sync.rollback()).rejects.toMatchObject({ code: "CUTOVER_STATE" });
  await sync.cutover({ reverse: false });
  await expect(sync.rollback()).rejects.toMatchObject({ code: "CUTOVER_STATE" });
  await expect(drain(sync)).rejects.toMatchObject({ code: "CUTOVER_STATE" });
  await expect(sync.copy()).rejects.toMatchObject({ code: "CUTOVER_STATE" });
  await sync.cutover({ finish: true });
  expect(await schemasOf(pair)).toEqual(before);
  await pair.source.sql(`insert into touched values (8)`);
  // Ids go on: each sequence is ahead of the source's.
  for (const name of ["ticket", "small", "account_id_seq", "entry_id_seq"]) {
    const [old] = await pair.source.sql<{ v: string }>(`select nextval('${name}') as v`);
    const [fresh] = await pair.target.sql<{ v: string }>(`select nextval('${name}') as v`);
    expect(Number(fresh?.v)).toBeGreaterThanOrEqual(Number(old?.v));
  }
  const [down] = await pair.target.sql<{ v: string }>(`select nextval('down') as v`);
  expect(Number(down?.v)).toBeLessThan(-7);
});

test("an application that is told by the opening: what it notices, at some 500 writes a second", async () => {
  await using pair = await freePair();
  await using prepared = await prepareCutover(pair);
  const { sync } = prepared;
  await pair.source.sql(`insert into account (name) select 'more ' || g from generate_series(1, 100000) g`);
  await drain(sync);
  const application = startApplication(pair.source.url, { writers: 5, pauseMs: 15 });
  const startedAt = Date.now();
  let fenceSeconds: number | null = null;
  let perSecond = 0;
  try {
    await sleep(1500);
    const writes = [...application.committed.values()].reduce(
      (sum, numbers) => sum + 2.14 * numbers.length,
      0,
    );
    perSecond = writes / ((Date.now() - startedAt) / 1000);
    application.longestPause = 0;
    const report = await sync.cutover({
      onEvent: (event) => {
        if (event.type === "switch-step" && event.step.startsWith("open"))
          application.switchTo(pair.target.url);
      },
    });
    ({ fenceSeconds } = report);
    await sleep(500);
  } finally {
    await application.stop();
  }
  process.stdout.write(
    `fence ${fenceSeconds?.toFixed(2)} s, longest pause of the application ${application.longestPause.toFixed(2)} s, ` +
      `at ${Math.round(perSecond)} writes/s\n`,
  );
  await assertNothingLost(pair.target, application);
  await drain(sync);
  expect(await differences(pair)).toEqual([]);
});
