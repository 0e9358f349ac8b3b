import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";

import { openSync, type Sync, type SyncEvent } from "../../src/index.ts";
import { drain, openPrepared, rows, schema } from "../support/cutover-setup.ts";
import { onBoth } from "../support/follow-setup.ts";
import { urlWith } from "../support/admin.ts";
import { compareDatabases } from "../support/compare.ts";
import { leastPrivilegedPair, type LeastPrivilegedPair } from "../support/least-privileged-pair.ts";
import { startProxy, type Proxy } from "../support/proxy.ts";
import { dieAt } from "../support/torture.ts";
import { until } from "../support/until.ts";

// The new side goes away for good while the old one is fenced: applications can write to the old side again without it,
// and when it is there again everybody agrees on what is the matter.

interface Scene extends AsyncDisposable {
  readonly pair: LeastPrivilegedPair;
  readonly sync: Sync;
  readonly events: SyncEvent[];
  /** The target, as the sync and processes of its own reach it. */
  readonly through: string;
  readonly proxy: Proxy;
  readonly isRefused: () => Promise<boolean>;
}

async function startScene(): Promise<Scene> {
  const pair = await leastPrivilegedPair({ leaks: "ignore" });
  await onBoth(pair, schema);
  await pair.source.sql(rows);
  const proxy = await startProxy({ targetPort: Number(new URL(pair.target.url).port) });
  const changed = new URL(urlWith(pair.target.url, {}));
  changed.port = String(proxy.port);
  changed.searchParams.set("connect_timeout", "3");
  const through = changed.toString();
  const { sync, events } = await openPrepared({
    source: pair.source,
    target: { ...pair.target, url: through },
  });
  return {
    pair,
    sync,
    events,
    through,
    proxy,
    isRefused: async () =>
      await pair.source
        .asWriter("update touched set times = times where false")
        .then(() => false, (error: { code?: string }) => error.code === "25006"), // prettier-ignore
    [Symbol.asyncDispose]: async () => {
      await sync[Symbol.asyncDispose]();
      await proxy.close();
      await pair.dispose();
    },
  };
}

const ways = {
  refused: async (proxy: Proxy) => {
    proxy.cutAll();
    await proxy.refuse(true);
  },
  silent: async (proxy: Proxy) => {
    proxy.blackhole(true);
    await Promise.resolve();
  },
};

async function bringBack(proxy: Proxy): Promise<void> {
  proxy.blackhole(false);
  proxy.cutAll();
  await proxy.refuse(false);
}

async function assertWhole({ pair, sync }: Scene): Promise<void> {
  await drain(sync);
  expect((await compareDatabases(pair.source.adminUrl, pair.target.adminUrl)).differences).toEqual([]);
  // Every entry fired the trigger once, where it was written.
  expect(
    await pair.target.sql(`select times - (select count(*)::int from entry) as extra from touched`),
  ).toEqual([{ extra: 0 }]);
}

const entry = (number: number): string =>
  `insert into entry (account_id, writer, number, amount) values (1, 0, ${number}, 0)`;

for (const way of ["refused", "silent"] as const) {
  for (const step of ["draining", "restoring constraints and triggers"]) {
    test(`the target is ${way} while ${step}`, { timeout: 240_000 }, async () => {
      await using scene = await startScene();
      const { pair, sync, proxy, isRefused } = scene;
      let isGone = false;
      const outcome = sync
        .cutover({
          timeoutMs: 3000,
          onEvent: (event) => {
            if (event.type !== "switch-step" || event.step !== step) return;
            isGone = true;
            void ways[way](proxy);
          },
        })
        .then(
          () => "switched",
          (error: unknown) => String(error),
        );
      await until("the target is gone", () => isGone);
      await until("the source takes writes", async () => !(await isRefused()));
      await pair.source.asWriter(entry(1));
      expect(await outcome).toContain("the old side takes writes");
      await bringBack(proxy);
      expect(await sync.status()).toMatchObject({ phase: "following", fence: null });
      await sync.cutover({ undo: true });
      expect(await sync.status()).toMatchObject({ phase: "following", switch: null, fence: null });
      await assertWhole(scene);
      expect((await sync.cutover()).result).toBe("switched");
      await sync.drop();
    });
  }
}

for (const name of ["cutover.raised", "cutover.drained", "cutover.restored"]) {
  test(`the process dies at ${name}, and the target with it`, { timeout: 240_000 }, async () => {
    await using scene = await startScene();
    const { pair, sync, events, proxy, through, isRefused } = scene;
    await dieAt(name, {
      sync: { name: "shop", source: pair.source.url, target: through, env: {}, keylessLimit: 0 },
      verbs: ["cutover"],
    });
    expect(await isRefused()).toBe(true);
    await ways.refused(proxy);
    await expect(sync.status()).rejects.toMatchObject({
      code: "SERVER_UNREACHABLE",
      message: expect.stringContaining("the source refuses writes") as unknown,
      hint: expect.stringContaining("cutover --undo") as unknown,
    });
    expect(await sync.cutover({ undo: true })).toMatchObject({ result: "undone", primary: "source" });
    expect(events.at(-1)).toMatchObject({ type: "warning", message: expect.stringContaining("--undo") });
    expect(await isRefused()).toBe(false);
    await pair.source.asWriter(entry(2));

    await bringBack(proxy);
    expect(await sync.status()).toMatchObject({ phase: "following", fence: null });
    // Nothing is applied to tables whose triggers act.
    if (name === "cutover.restored")
      await expect(drain(sync)).rejects.toMatchObject({ code: "CUTOVER_STATE" });
    else await drain(sync);
    await pair.source.asWriter(entry(3));
    // Either way goes on from here.
    if (name === "cutover.drained") await sync.cutover({ undo: true });
    else {
      expect((await sync.cutover()).result).toBe("switched");
      await sync.rollback();
    }
    await assertWhole(scene);
    await sync.drop();
  });
}

test("the process dies just before the opening, and the target with it", { timeout: 240_000 }, async () => {
  await using scene = await startScene();
  const { pair, sync, proxy, through, isRefused } = scene;
  await dieAt("cutover.sealed", {
    sync: { name: "shop", source: pair.source.url, target: through, env: {}, keylessLimit: 0 },
    verbs: ["cutover"],
  });
  await ways.refused(proxy);
  await expect(sync.cutover({ undo: true })).rejects.toMatchObject({
    code: "CUTOVER_FENCED",
    hint: expect.stringContaining("drop --source-only") as unknown,
  });
  expect(await isRefused()).toBe(true);
  await sync.drop({ sourceOnly: true });
  await pair.source.asWriter(entry(4));
  // It is back, and is told so.
  await bringBack(proxy);
  await expect(sync.cutover()).rejects.toMatchObject({ code: "SOURCE_LOST" });
  const status = await sync.status();
  expect(status.fence).toBeNull();
  expect(status.phase).not.toBe("fenced");
  await sync.drop({ targetOnly: true });
});

test(
  "a cutover whose fence somebody else has lifted does not open the target",
  { timeout: 240_000 },
  async () => {
    await using scene = await startScene();
    const { pair, sync, isRefused } = scene;
    await using other = await openSync({
      name: "shop",
      source: pair.source.url,
      // Nobody is there.
      target: "postgresql://nobody@127.0.0.1:1/none",
      env: {},
    });
    let lifting: Promise<unknown> | undefined;
    const outcome = sync
      .cutover({
        onEvent: (event) => {
          if (event.type === "switch-step" && event.step === "draining")
            lifting = other.cutover({ undo: true });
        },
      })
      .catch((error: unknown) => error);
    // Whoever takes the switch over ends the sessions of the process that had it.
    expect(await outcome).toMatchObject({
      code: expect.stringMatching(/^(CUTOVER_STATE|CAPTURE_BROKEN|CONNECTION_LOST)$/) as unknown,
    });
    expect(await lifting).toMatchObject({ result: "undone" });
    expect(await isRefused()).toBe(false);
    await sleep(100);
    expect(await sync.status()).toMatchObject({ switch: null, fence: null });
    await assertWhole(scene);
    await sync.drop();
  },
);
