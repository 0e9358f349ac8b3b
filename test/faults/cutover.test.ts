import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import type { CutoverOptions, Sync } from "../../src/index.ts";
import { failpoints } from "../../src/postgres/failpoint.ts";
import { schemaOf } from "../support/copy-setup.ts";
import {
  assertNothingLost, drain, openPrepared, rows, schema, startApplication,
} from "../support/cutover-setup.ts"; // prettier-ignore
import { onBoth } from "../support/follow-setup.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair, type Pair } from "../support/database.ts";
import { dieAt as runUntilDeath } from "../support/torture.ts";

// A death at every step of a switch, under writes: the next command undoes it or carries it on, status tells what is
// the matter meanwhile, and nothing is lost.

/** Runs a switch in a process of its own, which has to kill itself there. */
async function dieAt(
  { source, target }: Pair,
  name: string,
  verb: "cutover" | "rollback",
  options: CutoverOptions,
): Promise<void> {
  const sync = { name: "shop", source: source.url, target: target.url, env: {}, keylessLimit: 0 };
  await runUntilDeath(name, { sync, verbs: [verb], cutover: options });
}

/** What status says has to be true. Returns whether the new side is open. */
async function assertToldTruly(sync: Sync, pair: Pair): Promise<boolean> {
  // The server notices a dead process when it has done what it was asked.
  for (let tries = 0; (await sync.status()).switch?.isRunning === true && tries < 100; tries += 1)
    await sleep(50);
  const status = await sync.status();
  const refused = await pair.source
    .sql(`update touched set times = times where false`)
    .then(() => false, (error: { code?: string }) => error.code === "25006"); // prettier-ignore
  const isOpen = ["opening", "open"].includes(status.switch?.step ?? "");
  expect(status.fence?.side === "source").toBe(refused);
  expect(status.phase).toBe(isOpen ? "cut-over" : refused ? "fenced" : "following");
  return isOpen;
}

const all = failpoints.filter((name) => name.startsWith("cutover."));
/** Reached on the way of an undo, by roles that may not set the replica role, or where there was a fence before. */
const elsewhere = ["cutover.undo.lifted", "cutover.undo.forgotten", "cutover.stood-by", "cutover.lifted"];

test.for(all.filter((name) => !elsewhere.includes(name)))(
  "a death at %s",
  { timeout: 180_000 },
  async (name) => {
    await using pair = await freePair({ leaks: "ignore" });
    await onBoth(pair, schema);
    await pair.source.sql(rows);
    const before = await schemaOf(pair.source);
    const { sync } = await openPrepared(pair);
    await using _ = sync;
    const application = startApplication(pair.source.url, { pauseMs: 20 });
    const options: CutoverOptions = { onOpen: "true" };
    try {
      await dieAt(pair, name, "cutover", options);
      if (!(await assertToldTruly(sync, pair))) {
        expect((await sync.cutover({ undo: true })).result).toBe("undone");
        expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
        await sleep(100);
        await dieAt(pair, name, "cutover", options);
        await assertToldTruly(sync, pair);
      }
      expect(["switched", "nothing-to-do"]).toContain((await sync.cutover(options)).result);
      expect((await sync.status()).phase).toBe("cut-over");
      application.switchTo(pair.target.url);
      await sleep(300);
    } finally {
      await application.stop();
    }
    await drain(sync);
    await assertNothingLost(pair.target, application);
    await assertNothingLost(pair.source, application);
    expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
    await sync.drop();
    expect(await schemaOf(pair.source)).toBe(before);
  },
);

test.for([
  "cutover.captured",
  "cutover.fenced",
  "cutover.raised",
  "cutover.closed",
  "cutover.placed",
  "cutover.sealed",
  "cutover.opened",
  "cutover.new-side-lifted",
  "cutover.lifted",
])("a death at %s of a rollback", { timeout: 180_000 }, async (name) => {
  await using pair = await freePair({ leaks: "ignore" });
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  const { sync } = await openPrepared(pair);
  await using _ = sync;
  await sync.cutover();
  const application = startApplication(pair.target.url, { pauseMs: 20 });
  try {
    await sleep(200);
    await dieAt(pair, name, "rollback", {});
    for (let tries = 0; (await sync.status()).switch?.isRunning === true && tries < 100; tries += 1)
      await sleep(50);
    const { switch: known } = await sync.status();
    if (known?.step === "preparing" || known?.step === "fencing") {
      expect((await sync.rollback({ undo: true })).primary).toBe("target");
      expect(await sync.status()).toMatchObject({
        phase: "cut-over",
        switch: { way: "cutover", step: "open" },
      });
      await sleep(100);
    }
    await sync.rollback();
    expect((await sync.status()).phase).toBe("following");
    application.switchTo(pair.source.url);
    await sleep(300);
  } finally {
    await application.stop();
  }
  await drain(sync);
  await assertNothingLost(pair.source, application);
  await assertNothingLost(pair.target, application);
  expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
  await sync.drop();
});

test.for(["cutover.undo.lifted", "cutover.undo.forgotten", "cutover.lifted"])(
  "a death at %s of an undo",
  { timeout: 180_000 },
  async (name) => {
    await using pair = await freePair({ leaks: "ignore" });
    await onBoth(pair, schema);
    await pair.source.sql(rows);
    const { sync } = await openPrepared(pair);
    await using _ = sync;
    await dieAt(pair, "cutover.restored", "cutover", {});
    await dieAt(pair, name, "cutover", { undo: true });
    expect(await assertToldTruly(sync, pair)).toBe(false);
    await sync.cutover({ undo: true });
    expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
    expect((await sync.cutover()).result).toBe("switched");
    await sync.drop();
  },
);

test.for(["cutover.captured", "cutover.fenced", "cutover.placed", "cutover.opened", "cutover.retired"])(
  "a drop after a death at %s leaves no trace",
  { timeout: 180_000 },
  async (name) => {
    await using pair = await freePair({ leaks: "ignore" });
    await onBoth(pair, schema);
    const before = [await schemaOf(pair.source), await schemaOf(pair.target)];
    await pair.source.sql(rows);
    const { sync } = await openPrepared(pair);
    await using _ = sync;
    await dieAt(pair, name, "cutover", {});
    for (let tries = 0; (await sync.status()).switch?.isRunning === true && tries < 100; tries += 1)
      await sleep(50);
    await sync.drop();
    expect([await schemaOf(pair.source), await schemaOf(pair.target)]).toEqual(before);
    await pair.source.sql(`insert into touched values (9)`);
  },
);
