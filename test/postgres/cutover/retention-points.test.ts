import { expect, test } from "vitest";

import { resolveConfig } from "../../../src/config/options.ts";
import {
  clearRetentionPoint,
  moveRetentionPoints,
  setRetentionPoint,
} from "../../../src/cutover/retention-point.ts";
import { makeContext, Sessions } from "../../../src/state/open-context.ts";
import { freePair } from "../../support/database.ts";
import { drain, prepareCutover } from "../../support/cutover-setup.ts";

test("what was compared is kept no longer, and what was not is kept until the end", async () => {
  await using pair = await freePair();
  const { sync } = await prepareCutover(pair);
  await using _ = sync;
  const sessions = new Sessions();
  const config = resolveConfig({ name: "shop", source: pair.source.url, target: pair.target.url }, {});
  const context = makeContext(config, sessions, {});
  const captures = await pair.target.sql<{ id: number; name: string }>(
    `select capture_id as id, source_name as name from replicate.sync_table`,
  );
  const idOf = (name: string): number => captures.find((each) => each.name === name)?.id ?? 0;
  const position = async (): Promise<string> =>
    (await pair.target.sql<{ position: string }>(`select position from replicate.sync`))[0]?.position ?? "";
  /** Tables whose deltas are still there once follow has applied them. */
  const kept = async (): Promise<string[]> => {
    await drain(sync);
    const names = [];
    for (const { id, name } of captures) {
      const deltas = await pair.source.sql(
        `select 1 from replicate.delta_${id}_a union all select 1 from replicate.delta_${id}_b`,
      );
      if (deltas.length > 0) names.push(name);
    }
    return names.toSorted();
  };
  const change = "update account set balance = 0 where id < 9; update touched set times = times";
  const first = await position();
  expect(await setRetentionPoint(context)).toEqual(new Map(captures.map(({ id }) => [id, first])));
  await pair.source.sql(change);
  expect(await kept()).toEqual(["account", "touched"]);

  // A later run finds the points as they were moved, and a table that came in between has one too.
  await using source = await context.source("test");
  const second = await position();
  expect(second).not.toBe(first);
  const moved = await moveRetentionPoints(context, source, new Map([[idOf("account"), second]]));
  expect(moved.get(idOf("account"))).toBe(second);
  expect(moved.get(idOf("touched"))).toBe(first);
  await pair.source.sql(
    `delete from replicate.subscription where sync = 'shop.mark' and capture_id = ${idOf("log")}`,
  );
  const again = await setRetentionPoint(context);
  expect(again).toEqual(new Map([...moved, [idOf("log"), second]]));
  expect(await kept()).toEqual(["touched"]);

  // What changes after its point is kept again.
  await pair.source.sql(change);
  expect(await kept()).toEqual(["account", "touched"]);
  await clearRetentionPoint(context);
  expect(await kept()).toEqual([]);
  await sessions.closeAll();
});
