import { expect, test } from "vitest";

import type { Sync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { differences, followUntilCaughtUp, openCopySync } from "../../support/copy-setup.ts";
import { onBoth, startFollowed } from "../../support/follow-setup.ts";

// Partitions that the source has and the target has not: told with the statement that makes them, before rows are refused
// and when they are; then it goes on.

async function rehearse(sync: Sync): Promise<readonly { readonly remedy?: string }[]> {
  return (await sync.cutover({ rehearse: true })).rehearsal?.blockers ?? [];
}

interface Scene {
  readonly name: string;
  readonly both: string;
  /** Makes the partition on the source. */
  readonly made: string;
  readonly rows: string;
  /** The statement told; null: the target is divided in another way, so that it cannot be. */
  readonly told: string | null;
  /** Makes the partition on the target where no statement is told. */
  readonly by?: string;
}

const byDay = `create table ev (day date, id int, primary key (day, id)) partition by range (day);
  create table ev_01 partition of ev for values from ('2026-01-01') to ('2026-02-01');`;
const february = "for values from ('2026-02-01') to ('2026-03-01')";
const FEBRUARY = "FOR VALUES FROM ('2026-02-01') TO ('2026-03-01')";

const scenes: readonly Scene[] = [
  {
    name: "a range",
    both: byDay,
    made: `create table "ev 02" partition of ev ${february}`,
    rows: "insert into ev values ('2026-02-05', 1)",
    told: `create table "public"."ev 02" partition of "public"."ev" ${FEBRUARY};`,
  },
  {
    name: "one that brings its rows",
    both: byDay,
    made: `create table ev_02 (like ev including all); insert into ev_02 values ('2026-02-05', 1);
      alter table ev attach partition ev_02 ${february}`,
    rows: "insert into ev values ('2026-01-05', 1)",
    told: `create table "public"."ev_02" partition of "public"."ev" ${FEBRUARY};`,
  },
  {
    name: "a list below a range",
    both: `create table ev (day date, id int, primary key (day, id)) partition by range (day);
      create table ev_01 partition of ev for values from ('2026-01-01') to ('2026-02-01') partition by list (id);
      create table ev_01_a partition of ev_01 for values in (1, 2)`,
    made: "create table ev_01_b partition of ev_01 for values in (3)",
    rows: "insert into ev values ('2026-01-05', 3)",
    told: `create table "public"."ev_01_b" partition of "public"."ev_01" FOR VALUES IN (3);`,
  },
  {
    name: "two levels at once",
    both: byDay,
    made: `create table ev_02 partition of ev ${february} partition by list (id);
      create table ev_02_a partition of ev_02 for values in (1); create table ev_02_b partition of ev_02 default`,
    rows: "insert into ev values ('2026-02-05', 1), ('2026-02-05', 2)",
    told: `create table "public"."ev_02" partition of "public"."ev" ${FEBRUARY} partition by LIST (id);
create table "public"."ev_02_a" partition of "public"."ev_02" FOR VALUES IN (1);
create table "public"."ev_02_b" partition of "public"."ev_02" DEFAULT;`,
  },
  {
    name: "a table in another schema",
    both: `create schema old; ${byDay}`,
    made: `create table old.ev_02 partition of ev ${february}`,
    rows: "insert into ev values ('2026-02-05', 1)",
    told: `create table "old"."ev_02" partition of "public"."ev" ${FEBRUARY};`,
  },
  {
    name: "a default partition",
    both: byDay,
    made: "create table ev_rest partition of ev default",
    rows: "insert into ev values ('2026-02-05', 1)",
    told: `create table "public"."ev_rest" partition of "public"."ev" DEFAULT;`,
  },
  {
    name: "a target that is divided in another way",
    both: "",
    made: `create table ev_02 partition of ev ${february}`,
    rows: "insert into ev values ('2026-02-05', 1)",
    told: null,
    by: `create table ev_2 partition of ev for values from ('2026-02-01') to ('2026-02-10')`,
  },
];

test.for(scenes)("while it is followed: $name", async ({ both, made, rows, told, by }) => {
  await using pair = await freePair();
  if (both === "") {
    await pair.source.sql(byDay);
    await pair.target.sql(`create table ev (day date, id int, primary key (day, id)) partition by range (day);
      create table ev_1 partition of ev for values from ('2026-01-01') to ('2026-01-15')`);
  }
  await using followed = await startFollowed(pair, both);
  await pair.source.sql(`insert into ev values ('2026-01-02', 1)`);
  expect(await followed.differences()).toEqual([]);
  await pair.source.sql(`${made}; ${rows}`);
  const [failed] = await Promise.allSettled([followed.drain()]);
  expect(failed).toMatchObject({
    reason: {
      code: "TABLE_SHAPE_CHANGED",
      message: expect.stringMatching(/no partition.*public\.ev/) as string,
      hint: expect.stringMatching(/create the partition on the target/i) as string,
    },
  });
  const { problems } = (failed as PromiseRejectedResult).reason as { problems: { remedy: string }[] };
  const remedies = problems.map(({ remedy }) => remedy).join("\n");
  expect(remedies).toBe(told ?? "");
  const warned = followed.events.flatMap((event) => (event.type === "warning" ? [event.message] : []));
  if (told !== null) expect(warned.join()).toContain(told.split("\n")[0]);
  const report = await followed.sync.preflight();
  const blocking = report.findings.filter(({ severity }) => severity === "blocking");
  const statements = blocking.map(({ remedy }) => remedy?.replaceAll(/^--.*\n/gm, "")).join("\n");
  expect(statements).toBe(told ?? "");
  if (told !== null) {
    const rehearsed = await rehearse(followed.sync);
    expect(rehearsed.map(({ remedy }) => remedy).join("\n")).toBe(told);
    expect((await followed.sync.status()).lastError).toMatchObject({ code: "TABLE_SHAPE_CHANGED" });
  }
  await pair.target.sql(told ?? by ?? "");
  expect(await followed.differences(["public.ev"])).toEqual([]);
  expect(await pair.source.sql("select from ev")).toHaveLength(
    (await pair.target.sql("select from ev")).length,
  );
  expect(await rehearse(followed.sync)).toEqual([]);
});

test("an empty one that the target lacks stops nothing, but is told at once and before the switch", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, byDay);
  await followed.drain();
  await pair.source.sql(
    `create table ev_02 partition of ev ${february}; insert into ev values ('2026-01-05', 1)`,
  );
  expect(await followed.differences(["public.ev"])).toEqual([]);
  const statement = `create table "public"."ev_02" partition of "public"."ev" ${FEBRUARY};`;
  const warned = followed.events.filter(
    (event) => event.type === "warning" && event.message.includes(statement),
  );
  expect(warned).toHaveLength(1);
  expect(await rehearse(followed.sync)).toMatchObject([{ remedy: statement }]);
});

test("the target keeps partitions that the source has dropped", async () => {
  await using pair = await freePair();
  await using followed = await startFollowed(pair, byDay);
  await followed.drain();
  await pair.source.sql("drop table ev_01");
  await followed.drain();
  await pair.source.sql(
    `create table ev_02 partition of ev ${february}; insert into ev values ('2026-02-05', 1)`,
  );
  const [failed] = await Promise.allSettled([followed.drain()]);
  const { problems } = (failed as PromiseRejectedResult).reason as { problems: { remedy: string }[] };
  expect(problems).toMatchObject([{ remedy: expect.stringContaining(FEBRUARY) as string }]);
});

test("copy", async () => {
  await using pair = await freePair();
  await onBoth(pair, byDay);
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await pair.source
    .sql(`create table ev_02 (like ev including all); insert into ev_02 values ('2026-02-05', 1);
    alter table ev attach partition ev_02 ${february}`);
  const [failed] = await Promise.allSettled([sync.copy()]);
  const remedy = `create table "public"."ev_02" partition of "public"."ev" ${FEBRUARY};`;
  expect(failed).toMatchObject({ reason: { code: "TABLE_SHAPE_CHANGED", problems: [{ remedy }] } });
  await pair.target.sql(remedy);
  await sync.copy();
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
});
