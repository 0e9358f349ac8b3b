import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect, test } from "vitest";

import { playCopy, type CopyScene } from "../support/copy-scene.ts";
import { isWell, isWrong, playFollow, startProxies, untilTold, type Scene } from "../support/fault-scene.ts";
import { ownServers } from "../support/own-servers.ts";
import type { Proxy } from "../support/proxy.ts";
import { until } from "../support/until.ts";

// Networks break, fall silent or refuse, and administrators end sessions: it goes on by itself, and nothing is lost.

const servers = ownServers();

/** Longer than any time-out of ours, and than what a route takes to be found again. */
const silenceMs = 120_000;

// While all is silent there is little to do but wait, so the others take place meanwhile.
test.concurrent("the network is silent for two minutes", { timeout: 300_000 }, async () => {
  await Promise.all([
    silentFollow("source"),
    silentFollow("target"),
    silentCopy("source"),
    silentCopy("target"),
  ]);
});

describe.concurrent("meanwhile, with databases of their own", () => {
  test.sequential("connections are cut, and new ones refused for a while", { timeout: 180_000 }, async () => {
    await using proxies = await startProxies(servers);
    await using scene = await playFollow(servers, proxies);
    for (const side of ["source", "target"] as const) {
      const losses = lossesOf(scene).length;
      proxies[side].cutAll();
      await until("the loss is told", () => lossesOf(scene).length > losses);
      await scene.nextBatch();
      await scene.nextBatch();
      await proxies[side].refuse(true);
      proxies[side].cutAll();
      await until("the refusal is told", () => lossesOf(scene).some((said) => /ECONNREFUSED/.test(said)));
      // The side is right both where a session was cut and where none is let in.
      const lost = scene.events.filter((event) => event.type === "connection-lost").slice(losses);
      expect(new Set(lost.map((event) => event.side))).toEqual(new Set([side]));
      if (side === "source") await scene.told("what is wrong", isWrong);
      await proxies[side].refuse(false);
      await scene.nextBatch();
      await scene.told("all is well", isWell);
    }
    await scene.finish();
  });

  test.sequential("each session of a runner is ended by an administrator", { timeout: 180_000 }, async () => {
    await using scene = await playFollow(servers);
    const ended = new Set<string>();
    for (let round = 0; round < 3; round += 1) {
      for (const side of ["source", "target"] as const) {
        for (const { pid, name } of await scene.pair[side].sql<{ pid: number; name: string }>(ourSessions)) {
          const losses = lossesOf(scene).length;
          await scene.pair[side].sql("select pg_terminate_backend($1)", [pid]);
          ended.add(`${side}: ${name}`);
          if (name === "replicate follow")
            await until("the loss is told", () => lossesOf(scene).length > losses);
          await scene.nextBatch();
        }
      }
    }
    expect([...ended]).toEqual(
      expect.arrayContaining(["source: replicate follow", "target: replicate follow"]),
    );
    await scene.nextBatch();
    await scene.told("all is well", isWell);
    await scene.finish();
  });

  test.sequential("each session of a copy is ended by an administrator", { timeout: 180_000 }, async () => {
    await using scene = await playCopy(servers);
    const ended = new Set<string>();
    for (const side of ["source", "target"] as const) {
      const sessions = await scene.pair[side].sql<{ name: string }>(ourSessions);
      for (const name of new Set(sessions.map((each) => each.name))) {
        const losses = lossesOf(scene).length;
        let endedAt = 0;
        await until(`the loss of ${name} is told`, async () => {
          if (lossesOf(scene).length > losses) return true;
          // The one that is there now: the end of another may have had it opened anew, or closed for a moment.
          if (Date.now() - endedAt < 3000) return false;
          const found = await scene.pair[side].sql(
            `select pg_terminate_backend(pid) from (${ourSessions}) as s where name = $1 limit 1`,
            [name],
          );
          if (found.length > 0) endedAt = Date.now();
          return false;
        });
        ended.add(`${side}: ${name}`);
      }
    }
    expect([...ended].toSorted()).toEqual([
      "source: replicate copy",
      "source: replicate copy (lock watch)",
      "target: replicate copy",
      "target: replicate copy (indexes)",
      "target: replicate copy (progress)",
    ]);
    await finishCopy(scene);
  });

  test.sequential("statements of ours are cancelled", { timeout: 180_000 }, async () => {
    await using scene = await playFollow(servers);
    const [capture] = await scene.pair.source.sql<{ id: number }>(
      "select id from replicate.capture where relid = 'accounts'::regclass",
    );
    for (const side of [scene.pair.source, scene.pair.target, scene.pair.source, scene.pair.target]) {
      const holder = await side.client();
      await holder.query("begin; lock table accounts in access exclusive mode");
      // Writers wait for the lock too, perhaps before they have left anything to be read.
      await scene.pair.source.sql(`insert into replicate.delta_${capture?.id}_a (k1) values (1)`);
      await until(
        "one of ours waits for the lock",
        async () =>
          (
            await side.sql(
              `select pg_cancel_backend(pid) from pg_stat_activity
               where application_name like 'replicate follow%' and datname = current_database() and wait_event_type = 'Lock'`,
            )
          ).length > 0,
      );
      await holder.query("commit");
      await scene.nextBatch();
      await scene.nextBatch();
    }
    await scene.finish();
  });
});

function lossesOf({ events }: Pick<Scene, "events">): string[] {
  return events.flatMap((event) => (event.type === "connection-lost" ? [event.message] : []));
}

/** Returns when the silence has been noticed. */
async function fallSilent(proxy: Proxy, events: Scene["events"]): Promise<void> {
  const before = lossesOf({ events }).length;
  proxy.blackhole(true);
  await until("the silence is noticed", () => lossesOf({ events }).length > before);
}

async function silentFollow(side: "source" | "target"): Promise<void> {
  await using proxies = await startProxies(servers);
  await using scene = await playFollow(servers, { ...proxies, pauseMs: 300 });
  const end = sleep(silenceMs);
  await fallSilent(proxies[side], scene.events);
  const last = scene.last();
  if (side === "source") {
    const status = await scene.told("what is wrong", isWrong);
    expect(status).toMatchObject({ phase: "following", runner: { alive: true } });
  } else {
    // The runner cannot tell the target anything; that it is not heard of is what there is to say.
    const isSilent = ({ seenAt, alive }: { seenAt: string | null; alive: boolean }): boolean =>
      !alive || Date.now() - new Date(seenAt ?? 0).getTime() > 20_000;
    await scene.told("the runner's silence", ({ runner }) => isSilent(runner));
  }
  await end;
  expect(scene.last()).toBe(last);
  proxies[side].blackhole(false);
  await scene.nextBatch();
  await scene.nextBatch();
  await scene.told("all is well", isWell);
  await scene.finish();
}

async function silentCopy(side: "source" | "target"): Promise<void> {
  await using scene = await playCopy(servers);
  const end = sleep(silenceMs);
  await fallSilent(scene.proxies[side], scene.events);
  if (side === "source") await untilTold(scene.observer, "what is wrong", isWrong);
  await end;
  expect((await scene.observer.status()).phase).toBe("copying");
  scene.proxies[side].blackhole(false);
  await scene.finish();
  expect(await scene.observer.status()).toMatchObject(
    side === "source" ? { lastError: { cleared: true } } : {},
  );
}

const ourSessions = `
  select pid, application_name as name from pg_stat_activity
  where application_name like 'replicate %' and application_name <> 'replicate status' and datname = current_database()
  order by name, pid`;

async function finishCopy(scene: CopyScene): Promise<void> {
  await scene.finish();
  expect((await scene.observer.status()).lastError?.cleared).not.toBe(false);
}
