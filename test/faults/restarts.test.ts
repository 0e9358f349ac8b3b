import { expect, test } from "vitest";

import type { Cluster } from "../support/cluster.ts";
import { playCopy } from "../support/copy-scene.ts";
import { isWell, isWrong, playFollow, untilTold } from "../support/fault-scene.ts";
import { ownServers } from "../support/own-servers.ts";
import { until } from "../support/until.ts";

// Servers restart, and are away for a while: a runner and a copy carry on by themselves from where the target is, status
// says meanwhile what is the matter, and nothing is lost.

const servers = ownServers();

const ways = ["fast", "immediate", "kill9"] as const;

async function takeDown(server: Cluster, way: (typeof ways)[number]): Promise<void> {
  if (way === "kill9") await server.kill9();
  else await server.down(way);
}

for (const way of ways) {
  test(`the target is away while it is followed: ${way}`, { timeout: 180_000 }, async () => {
    await using scene = await playFollow(servers);
    await takeDown(servers.target, way);
    await until("the loss is told", () =>
      scene.events.some((event) => event.type === "connection-lost" && event.side === "target"),
    );
    // The state is on the target: whoever asks is told that it is away, and what to do.
    await expect(scene.told("anything", () => true)).rejects.toThrow("cannot connect to the target");
    await servers.target.restart();
    await scene.nextBatch();
    await scene.nextBatch();
    expect(scene.events.map(({ type }) => type)).toContain("connection-restored");
    // Told afterwards, as something that is over.
    const status = await scene.told("all is well", isWell);
    expect(status.lastError).toMatchObject({ cleared: true });
    await scene.finish();
  });

  test(`the source is away while it is followed: ${way}`, { timeout: 180_000 }, async () => {
    await using scene = await playFollow(servers);
    // The writers' connections go with the server; they are not the subject.
    await scene.workload.stop();
    await scene.pair.source.sql("update accounts set owner = 'before'");
    await takeDown(servers.source, way);
    const status = await scene.told("what is wrong", (each) => each.lastError?.code === "SERVER_UNREACHABLE");
    expect(isWrong(status)).toBe(true);
    expect(status).toMatchObject({ phase: "following", runner: { alive: true } });
    expect(status.sourceError).toContain("cannot connect to the source");
    await servers.source.restart();
    const next = scene.nextBatch();
    await until("the source takes writes", async () =>
      await scene.pair.source
        .sql("update accounts set owner = 'after'")
        .then(() => true, () => false),
    ); // prettier-ignore
    await next;
    await scene.told("all is well", isWell);
    await scene.finish();
  });
}

for (const [name, way] of [
  ["target", "kill9"],
  ["target", "fast"],
  ["source", "kill9"],
  ["source", "fast"],
] as const) {
  test(`the ${name} is away during the copy: ${way}`, { timeout: 180_000 }, async () => {
    await using scene = await playCopy(servers);
    const server = servers[name];
    await takeDown(server, way);
    await until("the loss is told", () => scene.events.some(({ type }) => type === "connection-lost"));
    if (name === "source") {
      const status = await untilTold(scene.observer, "what is wrong", isWrong);
      expect(status).toMatchObject({ phase: "copying" });
    } else {
      await expect(scene.observer.status()).rejects.toMatchObject({ code: "SERVER_UNREACHABLE" });
    }
    await server.restart();
    await scene.finish();
    expect((await scene.observer.status()).lastError?.cleared).not.toBe(false);
  });
}
