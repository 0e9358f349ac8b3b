import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { compareDatabases } from "../../support/compare.ts";
import { type LeastPrivilegedSide, leastPrivilegedPair } from "../../support/least-privileged-pair.ts";
import { seededRandom } from "../../support/random.ts";
import { describeSchema } from "../../support/schema-description.ts";
import { type ShopSide, takeShopThrough } from "../../support/shop-journey.ts";

// The owners of the tables, who are no superusers, and an application that is neither.

const sideOf = (side: LeastPrivilegedSide): ShopSide => ({
  url: side.url,
  writerUrl: side.writer.url,
  adminUrl: side.adminUrl,
});

test("the whole way with nothing but the ownership of the tables", async () => {
  await using pair = await leastPrivilegedPair();
  for (const side of [pair.source, pair.target]) {
    await expect(side.sql("set session_replication_role = replica")).rejects.toMatchObject({ code: "42501" });
  }
  const reactions = async (): Promise<unknown> =>
    await pair.target.asAdmin(
      `select 'trigger ' || tgname || tgenabled::text as line from pg_trigger where not tgisinternal and tgname !~ '^zzz_'
       union all select 'foreign key ' || conname from pg_constraint
        where contype = 'f' and connamespace = 'public'::regnamespace order by 1`,
    );
  const report = await takeShopThrough(sideOf(pair.source), sideOf(pair.target), {
    random: seededRandom("least privilege"),
    whileFollowing: async () => {
      // The audit is replicated like any other table: had the trigger fired here, its rows would be there twice.
      expect(await reactions()).toEqual([{ line: "trigger note_customerD" }, { line: "trigger touchD" }]);
      await expect(pair.source.asWriter("select * from replicate.capture")).rejects.toMatchObject({
        code: "42501",
      });
    },
  });
  expect(report.differences).toEqual([]);
  expect(report.schemaChanges).toEqual([]);
  expect(report.committed).toBeGreaterThan(20);
  expect(report.batches).toBeGreaterThan(1);
  expect(await reactions()).toHaveLength(2 + 5);
});

test("the application's writes go on whatever happens to its rights", async () => {
  await using pair = await leastPrivilegedPair();
  const tables = "create table t (id int primary key, v text); create table gone (id int primary key)";
  await pair.source.sql(tables);
  await pair.target.sql(tables);
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  await sync.init();
  await sync.copy();
  // A search path that offers other functions and operators, and no right on anything but the table itself.
  await pair.source.asAdmin(`
    create schema trap;
    create function trap.txid_current() returns bigint language plpgsql as $$ begin raise 'trapped'; end $$;
    create function trap.never(record, record) returns boolean language plpgsql as $$ begin raise 'trapped'; end $$;
    create operator trap.*<> (leftarg = record, rightarg = record, function = trap.never);
    grant usage on schema trap to public;`);
  await pair.source.asWriter("set search_path = trap, pg_temp, public, pg_catalog");
  await pair.source.asWriter("insert into t values (1, 'a'), (2, 'b'), (3, 'c')");
  await pair.source.asWriter("update t set id = 20, v = 'moved' where id = 2");
  await pair.source.asWriter(
    "insert into t values (1, 'again') on conflict (id) do update set v = 'upserted'",
  );
  await pair.source.asWriter("delete from t where id = 3");
  await pair.source.asAdmin(`grant truncate on gone to ${pair.source.writer.name}`);
  await pair.source.asWriter("insert into gone values (1); truncate gone");
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  expect(await pair.target.sql("select * from t order by id")).toEqual([
    { id: 1, v: "upserted" },
    { id: 20, v: "moved" },
  ]);
  // The trigger functions are nobody's but the trigger's.
  await expect(pair.source.asWriter("select replicate.capture_1()")).rejects.toMatchObject({ code: "42501" });
});

test("rights that are missing are named with the statements that give them, and nothing is changed", async () => {
  await using pair = await leastPrivilegedPair();
  await pair.source.sql("create table t (id int primary key)");
  await pair.target.sql("create table t (id int primary key)");
  for (const side of [pair.source, pair.target]) {
    await side.asAdmin(
      `create table stranger (id int primary key); alter table stranger owner to ${side.writer.name}`,
    );
  }
  await pair.target.asAdmin(
    `revoke create, temporary on database "${pair.target.name}" from ${pair.target.owner.name}, public;`,
  );
  await pair.source.asAdmin(
    `revoke create on database "${pair.source.name}" from ${pair.source.owner.name};`,
  );
  const schemas = async (): Promise<string[][]> =>
    await Promise.all([pair.source, pair.target].map((side) => describeSchema(side.adminUrl)));
  const before = await schemas();
  await using sync = await openSync({ source: pair.source.url, target: pair.target.url, env: {} });
  const error: unknown = await sync.init().then(
    () => undefined,
    (failure: unknown) => failure,
  );
  expect(error).toMatchObject({ code: "PREFLIGHT_BLOCKED", exitCode: 1 });
  const { problems } = error as { problems: { subject: string; message: string; remedy: string }[] };
  expect(problems.map(({ subject }) => subject).toSorted()).toEqual(
    ["public.stranger", "public.stranger", "source", "target", "target"].toSorted(),
  );
  expect(await schemas()).toEqual(before);

  // Each remedy does what it says, when somebody who may run it does.
  for (const { subject, message, remedy } of problems) {
    const side =
      subject === "source" || (subject !== "target" && !message.includes("target")) ? "source" : "target";
    await pair[side].asAdmin(remedy);
  }
  await sync.init();
  await sync.copy();
  await pair.source.asAdmin("insert into stranger values (1)");
  for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
  expect((await compareDatabases(pair.source.adminUrl, pair.target.adminUrl)).differences).toEqual([]);
  await sync.drop();
  const after = await schemas();
  expect(after.map((lines) => lines.filter((line) => line.includes("replicate")))).toEqual([[], []]);
});
