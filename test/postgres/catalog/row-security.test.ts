import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { leastPrivilegedPair, type LeastPrivilegedSide } from "../../support/least-privileged-pair.ts";
import { differences, followUntilCaughtUp } from "../../support/copy-setup.ts";

// Row security that begins to apply to our role after everything was checked. Whatever is to be done then, no row is passed
// over: the sync stops, says where, and goes on once it sees all rows.

const tables = `
  create table t (id int primary key, tenant text);
  create table p (k int, n int, primary key (k, n)) partition by list (k);
  create table p1 partition of p for values in (1); create table p2 partition of p for values in (2);
  create table keyless (tenant text);`;
const rows = `insert into t select g, case when g % 2 = 0 then 'mine' else 'theirs' end from generate_series(1, 100) g;
  insert into p select 1 + g % 2, g from generate_series(1, 100) g; insert into keyless values ('mine'), ('theirs')`;
const force = (table: string, condition: string): string =>
  `create policy hidden on ${table} using (${condition}); alter table ${table} enable row level security; alter table ${table} force row level security`;
const options = { keyless: "reload", env: {} } as const;

interface Case {
  readonly name: string;
  readonly side: "source" | "target";
  readonly hides: string;
  readonly table: string;
  /** What the application does on the source. */
  readonly change: string;
}

const hidesT = force("t", "tenant = 'mine'");
const cases: readonly Case[] = [
  { name: "deletes", side: "target", hides: hidesT, table: "t", change: "delete from t where id < 50" },
  { name: "updates", side: "target", hides: hidesT, table: "t", change: "update t set tenant = tenant || '!'" },
  { name: "inserts", side: "target", hides: hidesT, table: "t", change: "insert into t values (1000, 'mine')" },
  { name: "TRUNCATE", side: "target", hides: hidesT, table: "t", change: "truncate t; insert into t values (1, 'x')" },
  { name: "a partition", side: "target", hides: force("p", "n < 10"), table: "p", change: "delete from p where k = 2" },
  { name: "a partition emptied", side: "target", hides: force("p", "n < 10"), table: "p", change: "truncate p1; update p set n = n + 1000" },
  { name: "a reload", side: "target", hides: force("keyless", "tenant = 'mine'"), table: "keyless", change: "update keyless set tenant = 'x'" },
  { name: "reading changes", side: "source", hides: hidesT, table: "t", change: "update t set tenant = tenant || '!'" },
  { name: "reading a keyless table", side: "source", hides: force("keyless", "tenant = 'mine'"), table: "keyless", change: "insert into keyless values ('new')" },
]; // prettier-ignore

async function startedPair(pair: { source: LeastPrivilegedSide; target: LeastPrivilegedSide }) {
  await pair.source.sql(`${tables} ${rows}`);
  await pair.target.sql(tables);
  return await openSync({ source: pair.source.url, target: pair.target.url, ...options });
}

test.for(cases)("$name, $side", async ({ side, hides, table, change }) => {
  await using pair = await leastPrivilegedPair();
  await using sync = await startedPair(pair);
  await sync.init();
  await sync.copy();
  await followUntilCaughtUp(sync);
  await pair[side].sql(hides);
  await pair.source.asAdmin(change);
  const [failed] = await Promise.allSettled([followUntilCaughtUp(sync)]);
  expect(failed).toMatchObject({
    reason: {
      code: "ROWS_HIDDEN",
      exitCode: 3,
      message: expect.stringMatching(new RegExp(`on the ${side}.*"${table}"`)) as string,
      hint: expect.stringContaining("no force row level security") as string,
    },
  });
  const [verified] = await Promise.allSettled([sync.verify()]);
  // What is being read again as a whole is not compared.
  if (verified.status === "fulfilled")
    expect(verified.value.tables.find((each) => each.table === `public.${table}`)).toMatchObject({ rows: 0 });
  else expect(verified).toMatchObject({ reason: { code: "ROWS_HIDDEN" } });
  const report = await sync.preflight();
  const [finding] = report.findings.filter(({ severity }) => severity === "blocking");
  expect(finding?.subject).toBe(`public.${table}`);
  await pair[side].sql(finding?.remedy ?? "");
  await followUntilCaughtUp(sync);
  expect(await differences(admins(pair))).toEqual([]);
});

/** Who sees all rows, whatever is forced. */
function admins({ source, target }: { source: LeastPrivilegedSide; target: LeastPrivilegedSide }) {
  return {
    source: { url: source.adminUrl, sql: source.asAdmin },
    target: { url: target.adminUrl, sql: target.asAdmin },
  };
}

test.for(["source", "target"] as const)("a copy that is begun anew, %s", async (side) => {
  await using pair = await leastPrivilegedPair();
  await using sync = await startedPair(pair);
  await sync.init();
  await sync.copy();
  await pair[side].sql(hidesT);
  const [failed] = await Promise.allSettled([sync.copy({ restart: true, overwrite: true })]);
  expect(failed).toMatchObject({
    reason: { code: "ROWS_HIDDEN", message: expect.stringMatching(new RegExp(`${side}.*"t"`)) as string },
  });
  await pair[side].sql("alter table t no force row level security");
  await sync.copy({ restart: true, overwrite: true });
  await followUntilCaughtUp(sync);
  expect(await differences(admins(pair))).toEqual([]);
});

test.for(["source", "target"] as const)(
  "a role that does not bypass row security any more, %s",
  async (side) => {
    await using pair = await leastPrivilegedPair();
    for (const each of [pair.source, pair.target]) {
      await each.sql(`${tables} ${hidesT}`);
      await each.asAdmin(`alter role ${each.owner.name} bypassrls`);
    }
    await pair.source.sql(rows);
    await using sync = await openSync({ source: pair.source.url, target: pair.target.url, ...options });
    await sync.init();
    await sync.copy();
    await followUntilCaughtUp(sync);
    await pair[side].asAdmin(`alter role ${pair[side].owner.name} nobypassrls`);
    await pair.source.asAdmin("delete from t where id < 50");
    const [failed] = await Promise.allSettled([followUntilCaughtUp(sync)]);
    expect(failed).toMatchObject({ reason: { code: "ROWS_HIDDEN" } });
    await pair[side].asAdmin(`alter role ${pair[side].owner.name} bypassrls`);
    await followUntilCaughtUp(sync);
    expect(await differences(admins(pair))).toEqual([]);
  },
);

test.for(["source", "target"] as const)("preflight names the partition that hides rows, %s", async (side) => {
  await using pair = await leastPrivilegedPair();
  await using sync = await startedPair(pair);
  await pair[side].sql(force("p2", "n < 10"));
  const report = await sync.preflight();
  const blocking = report.findings.filter(({ severity }) => severity === "blocking");
  expect(blocking).toHaveLength(1);
  expect(blocking[0]?.message).toMatch(/row security/);
  expect(blocking[0]?.remedy).toMatch(/alter table "public"."p2" no force/);
});
