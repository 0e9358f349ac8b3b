import { setTimeout as sleep } from "node:timers/promises";
import { expect, test } from "vitest";
import { freePair } from "../support/database.ts";
import { startFollowed } from "../support/follow-setup.ts";
import { seededRandom } from "../support/random.ts";

// An application that never stops altering a few small tables: nothing it does concerns rows, and a long batch gets through.

const names = Array.from({ length: 6 }, (_, n) => `m${n + 1}`);
const harmless = [
  "alter column note set statistics 50",
  "alter column amount set default 7",
  "alter column amount drop default",
  "alter column note set storage external",
  "drop constraint if exists c, add constraint c check (amount > 0) not valid",
  "set (fillfactor = 90)",
];

test("a long batch gets through while six small tables are altered every 30 ms", async () => {
  const random = seededRandom("altered-meanwhile");
  await using pair = await freePair();
  await using followed = await startFollowed(
    pair,
    `create table big (id int primary key, v text); insert into big select g, repeat('v', 100) from generate_series(1, 60000) g;
     ${names.map((name) => `create table ${name} (id int primary key, amount int, note text); insert into ${name} select g, 1, 'n' from generate_series(1, 200) g`).join("; ")}`,
  );
  await followed.drain();
  await pair.source.sql("update big set v = v || 'w'");
  const end = new AbortController();
  let alters = 0;
  const [alterer, writer] = await Promise.all([pair.source.client(), pair.source.client()]);
  const altering = (async () => {
    while (!end.signal.aborted) {
      await alterer.query(`alter table ${random.pick(names)} ${random.pick(harmless)}`);
      alters += 1;
      await sleep(30);
    }
  })();
  const writing = (async () => {
    while (!end.signal.aborted) {
      await writer.query(`update ${random.pick(names)} set amount = amount + 1 where id <= 20`);
      await sleep(20);
    }
  })();
  const batches = await followed.drain();
  const before = alters;
  end.abort();
  await Promise.all([altering, writing]);
  expect(batches.some(({ rows }) => rows >= 60_000)).toBe(true);
  expect(before).toBeGreaterThan(10);
  expect(followed.events.filter(({ type }) => type === "table-reread")).toEqual([]);
  expect(await followed.differences()).toEqual([]);
}, 120_000); // prettier-ignore
