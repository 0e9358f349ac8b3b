import { describe, expect, test } from "vitest";

import { openSync } from "../../src/index.ts";
import { compareDatabases } from "../support/compare.ts";
import { freePair } from "../support/database.ts";

// Both sides are written to, and are of different versions.

const pairs = [
  ["10", "18"],
  ["11", "17"],
  ["14", "12"],
  ["16", "15"],
] as const;

// The columns of the key in another order on either side.
const schema = (key: string): string => `
  create type mood as enum ('sad', 'glad');
  create domain label as varchar(40) check (value <> '');
  create table person (region text not null, id bigint not null, email varchar(60) unique, mood mood, label label, raw bytea,
    doc jsonb, n numeric(12, 2), at timestamptz, tags text[], primary key (${key}));
  create table plain (id int primary key, v text);`;

describe.each(pairs)("between %s and %s", { timeout: 3 * 60_000 }, (source, target) => {
  test("changes go both ways, and conflicts are decided and logged", async () => {
    await using pair = await freePair({ source, target });
    await pair.source.sql(schema("region, id"));
    await pair.target.sql(schema("id, region"));
    await pair.source.sql(`
      insert into person select 'r' || g % 3, g, 'e' || g, 'sad', 'l' || g, '\\x00ff', '{"a": 1.50}', g / 3.0, '2020-01-01', '{a,b}' from generate_series(1, 300) g;
      insert into plain select g, 'v' from generate_series(1, 50) g`);
    await using sync = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      direction: "both",
      conflict: "latest",
      overrides: { "public.plain": { conflict: "source-wins" } },
      env: {},
    });
    const drain = async (): Promise<void> => {
      for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    };
    await sync.init();
    await sync.copy();
    await drain();
    await pair.source.sql(`
      update person set label = 'source', n = 10.10 where id <= 20; delete from person where id between 21 and 30;
      update person set region = 'moved' where id between 31 and 35; insert into person values ('new', 1000, 'same'), ('new', 1001, 'source');
      update plain set v = 'source' where id <= 10; truncate plain; insert into plain values (1, 'again')`);
    await pair.target.sql(`
      update person set label = 'target', doc = '{"b": [null]}' where id between 11 and 25; delete from person where id between 36 and 40;
      update person set mood = 'glad' where id = 33; insert into person values ('new', 2000, 'same'), ('new', 2001, 'target');
      update plain set v = 'target' where id = 5; insert into plain values (99, 'target')`);
    await drain();
    expect((await sync.verify()).tables.flatMap(({ differences }) => differences)).toEqual([]);
    expect((await compareDatabases(pair.source.url, pair.target.url)).differences).toEqual([]);
    const [found] = await pair.source.sql<{ source: number; target: number; same: string[] }>(
      `select count(*) filter (where label = 'source')::int as source, count(*) filter (where label = 'target')::int as target,
              array_agg(id::text) filter (where email = 'same') as same from person`,
    );
    expect(found).toEqual({ source: 10, target: 15, same: ["2000"] });
    expect(await pair.target.sql("select id, v from plain order by id")).toEqual([
      { id: 1, v: "again" },
      { id: 99, v: "target" },
    ]);
    const kinds = (await sync.conflicts({ limit: 1000 })).map(({ kind }) => kind);
    expect(kinds.filter((kind) => kind === "update_origin_differs")).toHaveLength(10);
    expect(kinds).toContain("multiple_unique_conflicts");
    const report = await sync.drop();
    expect(report.leftInvalid).toEqual([]);
  });
});
