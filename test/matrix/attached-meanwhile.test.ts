import { expect, test } from "vitest";

import { allVersions } from "../support/binaries.ts";
import { freePair, type Pair } from "../support/database.ts";
import { openFollowed } from "../support/follow-setup.ts";
import { until } from "../support/until.ts";

// A partition is attached between a batch's snapshot and the reading of its table, and is gone again when the batch looks
// back. A query reads the partitions of the moment in which it is planned: its rows must not go to the target.

/** Waits until the reading of a batch waits for this table. */
async function isReached(pair: Pair, table: string): Promise<void> {
  await until(`a batch waits for ${table}`, async () => {
    const waiting = await pair.source.sql(
      `select 1 from pg_locks l join pg_stat_activity a using (pid)
       where l.relation = $1::regclass and not l.granted and a.query like '%savepoint alone%'`,
      [table],
    );
    return waiting.length > 0;
  });
}

const members = [
  { what: "a partition", before: "", attach: "alter table r attach partition p for values from (1000) to (2000)", detach: "alter table r detach partition p" },
  { what: "one that is dropped then", before: "", attach: "alter table r attach partition p for values from (1000) to (2000)", detach: "drop table p" },
  { what: "a tree of partitions", before: "create table m (id int not null, v text) partition by range (id); alter table m attach partition p for values from (1000) to (2000)",
    attach: "alter table r attach partition m for values from (1000) to (3000)", detach: "alter table r detach partition m" },
  { what: "one of a partition", before: "create table m partition of r for values from (1000) to (3000) partition by range (id)",
    attach: "alter table m attach partition p for values from (1000) to (2000)", detach: "alter table m detach partition p" },
  { what: "the default one", before: "", attach: "alter table r attach partition p default", detach: "alter table r detach partition p", since: 11 },
  { what: "in the place of another", before: "", attach: "alter table r detach partition r1; alter table r attach partition p for values from (1000) to (2000)",
    detach: "alter table r detach partition p; alter table r attach partition r1 for values from (0) to (1000)" },
]; // prettier-ignore

test.each(
  allVersions.flatMap((version) =>
    members.filter(({ since = 10 }) => Number(version) >= since).map((member) => ({ version, ...member })),
  ),
)("version $version: $what", { timeout: 60_000 }, async ({ version, before, attach, detach }) => {
  await using pair = await freePair({ source: version, target: "18" });
  const plain = ["a", "z"].map((name) => `create table ${name} (id int primary key, v text); insert into ${name} values (1, 'v')`).join("; "); // prettier-ignore
  // Before 11 a key lies in the partitions alone.
  const [key, ownKey] = version === "10" ? ["", "(primary key (id))"] : [", primary key (id)", ""];
  await pair.source.sql(`${plain}; create table r (id int not null, v text${key}) partition by range (id);
    create table r1 partition of r ${ownKey} for values from (0) to (1000); insert into r values (1, 'v');
    create table p (id int primary key, v text); insert into p values (1500, 'stranger'); ${before}`);
  await pair.target.sql(
    `${plain}; create table r (id int primary key, v text); insert into r values (1, 'v')`,
  );
  await using followed = await openFollowed(pair, { tables: ["public.a", "public.r", "public.z"] });
  await pair.source.sql("update a set v = 'first'");
  const end = new AbortController();
  const following = (async () => {
    for await (const batch of followed.sync.follow({ signal: end.signal })) void batch;
  })();
  const hasCome = async (v: string): Promise<void> => {
    await until(
      `a has ${v}`,
      async () => (await pair.target.sql("select from a where v = $1", [v])).length > 0,
    );
  };
  await hasCome("first");
  const [first, last] = await Promise.all([pair.source.client(), pair.source.client()]);
  await first.query("begin; lock table a in access exclusive mode");
  await last.query("begin; lock table z in access exclusive mode");
  // The tables are read in this order: a by key, r and z as a whole.
  const captures = await pair.source.sql<{ id: number; active: string }>(
    "select id, active from replicate.capture order by id",
  );
  const [toA, toR, toZ] = captures.map(({ id, active }) => `insert into replicate.delta_${id}_${active}`);
  await pair.source.sql(
    `${toA} (k1) values ('1'); ${toR} (truncated) values (0); ${toZ} (truncated) values (0)`,
  );
  await isReached(pair, "a");
  await pair.source.sql(attach);
  await first.query("commit");
  await isReached(pair, "z");
  await pair.source.sql(detach);
  await last.query("commit");
  await pair.source.sql("update a set v = 'last'");
  await hasCome("last");
  end.abort();
  await following;
  const rows = "select * from r order by id";
  expect(await pair.target.sql(rows)).toEqual(await pair.source.sql(rows));
  expect(await pair.target.sql(rows)).toEqual([{ id: 1, v: "v" }]);
});
