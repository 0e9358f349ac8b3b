import { expect, test } from "vitest";

import { openSync, type SyncEvent } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";
import { onBoth } from "../../support/follow-setup.ts";

// What a copy says of itself, compared with what was there to copy.

const schema = `
  create table big (id int primary key, a int, b text);
  create index big_a on big (a);
  create index big_b on big (b);
  create table bare (id int primary key)`;

test("the figures of a copy are those of this copy, also when it is the second", async () => {
  await using pair = await freePair();
  await onBoth(pair, schema);
  await pair.source.sql(
    "insert into big select g, g % 7, repeat('v', 300) from generate_series(1, 20000) g; analyze",
  );
  const events: SyncEvent[] = [];
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    env: {},
    onEvent: (event) => events.push(event),
  });
  await sync.init();
  for (const round of [1, 2]) {
    events.length = 0;
    const report = await sync.copy(round === 1 ? {} : { restart: true, overwrite: true });
    const { copy, tables } = await sync.status();
    expect(copy, `round ${round}`).toMatchObject({
      tablesDone: 2,
      rowsDone: 20_000,
      indexesDone: 3,
      indexesTotal: 3,
    });
    expect(tables.find(({ source }) => source === "public.bare")).toMatchObject({ rows: 0, bytes: 0 });
    expect(report.tables.find(({ table }) => table === "public.bare")).toMatchObject({ rows: 0, bytes: 0 });
    const built = events.filter((event) => event.type === "index-built");
    expect(built).toHaveLength(3);
  }
});
