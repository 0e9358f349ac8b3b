import { expect, test } from "vitest";
import { freePair } from "../../support/database.ts";
import { differences, followUntilCaughtUp, onBoth, openCopySync } from "../../support/copy-setup.ts";

// Names that statements of ours use too, tables as wide as a table can be, and bytes of no known encoding.

const names = [
  "excluded", "s", "t", "d", "k", "x", "r", "old", "new", "stage_1", "changed_rows", "delta", "part", "replicate_pending",
  "replicate_difference", "refused_1", "tg_op", 'quo"ted', "per.iod", "user", "Ünïcode",
]; // prettier-ignore
const columns = [
  "excluded", "present", "k1", "k2", "c1", "packed", "did", "changed_at", "origin", "via", "op", "txid", "truncated", "n", "s",
  "t", "d", "x", "old", "new", "is_moved", "tg_relid", "hash", "rows", 'quo"ted', "user",
]; // prettier-ignore
const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;

test.each(["row", "statement"] as const)("names that our statements use, captured by %s", async (capture) => {
  await using pair = await freePair();
  const defined = columns.map((name) => `${quote(name)} text`).join(", ");
  await onBoth(
    pair,
    names
      .map((name, n) => {
        // Each of them is a column of the key somewhere.
        const key = [columns[n % columns.length], columns[(n + 7) % columns.length]] as [string, string];
        return `create table ${quote(name)} (${defined}, primary key (${key.map(quote).join(", ")}))`;
      })
      .join("; "),
  );
  const values = columns.map((_, n) => `'v${n} ' || g`).join(", ");
  await pair.source.sql(
    names
      .map((name) => `insert into ${quote(name)} select ${values} from generate_series(1, 40) g`)
      .join("; "),
  );
  const { sync } = await openCopySync(pair, { overrides: { "public.*": { capture } } });
  await using _ = sync;
  await sync.init();
  await sync.copy();
  await pair.source.sql(
    names
      .map((name) => {
        const set = columns.map((column) => `${quote(column)} = ${quote(column)} || '!'`).join(", ");
        return `update ${quote(name)} set ${set} where ${quote("n")} like '%3'; delete from ${quote(name)} where ${quote("n")} like '%7'`;
      })
      .join("; "),
  );
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  expect((await sync.verify()).equal).toBe(true);
  await pair.target.sql(
    names.map((name) => `update ${quote(name)} set hash = 'damaged' where n like '%5'`).join("; "),
  );
  expect((await sync.verify({ repair: true })).equal).toBe(false);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
});

test.each([
  [1590, "one-way"],
  [1598, "one-way"],
  [1599, "one-way"],
  [1600, "one-way"],
  [800, "both"],
] as const)("a table of %i columns, %s", async (count, direction) => {
  await using pair = await freePair();
  const types = ["int2", "text", "boolean", "date", "numeric", "jsonb"];
  const list = Array.from({ length: count - 1 }, (_, n) => `c${n} ${types[n % types.length]}`);
  // Columns that were dropped count as well.
  await onBoth(pair, `create table wide (id int primary key, ${list.join(", ")}, unique (c0))`);
  const last = count - 2;
  await pair.source.sql(
    `insert into wide (id, c0, c1, c${last - 5}) select g, g, 'ü' || g, null from generate_series(1, 30) g`,
  );
  const { sync } = await openCopySync(
    pair,
    direction === "both" ? { direction, conflict: "source-wins" } : {},
  );
  await using _ = sync;
  await sync.init();
  await sync.copy();
  const odd = Array.from({ length: 6 }, (_, n) => last - n);
  const value = (n: number): string =>
    ["7", `'te"xt, {}'`, "true", "'2020-02-29'", "1.50", `'{"a": null}'`][n % types.length] as string;
  await pair.source.sql(
    `update wide set ${odd.map((n) => `c${n} = ${value(n)}`).join(", ")} where id < 9; delete from wide where id = 4;
     update wide set id = 1000 where id = 1; update wide set c0 = -c0 where id in (5, 6); update wide set c0 = 6 where id = 5;
     update wide set c0 = 5 where id = 6`,
  );
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
  expect((await sync.verify()).equal).toBe(true);
  if (direction === "one-way") return;
  await pair.source.sql(`update wide set c${last} = ${value(last)} where id = 20`);
  await pair.target.sql(`update wide set c1 = 'theirs' where id in (20, 21)`);
  await followUntilCaughtUp(sync);
  expect(await differences(pair)).toEqual([]);
});

test("a table that is too wide for conflicts is refused by name", async () => {
  await using pair = await freePair();
  const list = Array.from({ length: 800 }, (_, n) => `c${n} int`).join(", ");
  await onBoth(pair, `create table wide (id int primary key, ${list})`);
  const { sync } = await openCopySync(pair, { direction: "both", conflict: "source-wins" });
  await using _ = sync;
  await expect(sync.init()).rejects.toMatchObject({
    code: "PREFLIGHT_BLOCKED",
    problems: [
      expect.objectContaining({
        subject: "public.wide",
        message: expect.stringContaining("801 columns") as string,
      }),
    ],
  });
});

test("bytes of no known encoding, in keys too", async () => {
  await using pair = await freePair({
    createOptions: "template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'",
  });
  const table = "set client_encoding = 'SQL_ASCII'; create table b (k text primary key, v text)";
  await onBoth(pair, table);
  await pair.source.sql(
    String.raw`insert into b select 'k' || g, 'v' from generate_series(1, 50) g; insert into b values (E'caf\xe9', E'\xe9\xa0'), (E'\xa1\xa2', E'\xff\xfe')`,
  );
  const { sync } = await openCopySync(pair);
  await using _ = sync;
  await sync.init();
  await sync.copy();
  await pair.source.sql(
    String.raw`update b set v = E'\xe8' where k = E'caf\xe9'; delete from b where k = E'\xa1\xa2'; update b set k = E'th\xe9' where k = 'k5'`,
  );
  await followUntilCaughtUp(sync);
  const contents = async (side: typeof pair.source): Promise<unknown[]> =>
    await side.sql(
      `select encode(textsend(k), 'hex') as k, encode(textsend(v), 'hex') as v from b order by 1`,
    );
  expect(await contents(pair.target)).toEqual(await contents(pair.source));
  expect((await sync.verify()).equal).toBe(true);
  await pair.target.sql(String.raw`update b set v = 'damaged' where k = E'th\xe9'`);
  expect((await sync.verify({ repair: true })).equal).toBe(false);
  await followUntilCaughtUp(sync);
  expect(await contents(pair.target)).toEqual(await contents(pair.source));
});
