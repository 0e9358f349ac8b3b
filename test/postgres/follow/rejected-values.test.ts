import { inspect } from "node:util";
import { describe, expect, it } from "vitest";

import { openSync, ReplicateError, type Sync } from "../../../src/index.ts";
import { freePair, type Pair } from "../../support/database.ts";

// Values of rows that the target rejects go nowhere: not into errors, events, logs, the status or the state.

const secret = "hunter2secret";

/** On the source a table without rules; on the target what refuses a row. `says`: what the user has to go by. */
const kinds = [
  ["check", "v text", "v text check (v not like 'hunter%')", "public.t"],
  ["not null", "v text, w text", "v text, w text not null", 'column "w"'],
  ["exclusion", "v text", "v text, exclude using btree (v with =)", "(v)"],
  ["unique", "v text", "v text unique", "(v)"],
  ["enum", "v public.mood", "v public.mood", "public.t"],
  ["domain", "v public.plain", "v public.plain", "public.t"],
  ["trigger", "v text", "v text", "not on sundays"],
] as const;

async function start(pair: Pair, source: string, target: string): Promise<void> {
  const types = (labels: string, rule: string): string =>
    `create type public.mood as enum (${labels}); create domain public.plain as text ${rule};`;
  await pair.source.sql(`${types(`'a', '${secret}'`, "")} create table t (id int primary key, ${source})`);
  await pair.target.sql(
    `${types("'a'", "check (value not like 'hunter%')")} create table t (id int primary key, ${target})`,
  );
}

describe.each(kinds)("a row refused by %s", (kind, source, target, says) => {
  it.each(["stop", "park"] as const)("is told without its values (%s)", async (onRefusal) => {
    await using pair = await freePair();
    await start(pair, source, target);
    const heard: unknown[] = [];
    const log = (fields: object, message: string): void => void heard.push(fields, message);
    const logger = { debug: log, info: log, warn: log, error: log };
    await using sync = await openSync({
      name: "secret", source: pair.source.url, target: pair.target.url, env: {}, onRefusal, logger,
      onEvent: (event) => void heard.push(event),
    }); // prettier-ignore
    await sync.init();
    await pair.source.sql(
      kind === "not null" ? "insert into t values (1, 'a', 'w')" : "insert into t (id, v) values (1, 'a')",
    );
    const first = await attempt(sync, "copy");
    expect(first).toBeUndefined();
    await attempt(sync, "follow");
    // What is enabled always before the copy is taken away by it.
    if (kind === "trigger")
      await pair.target.sql(`
      create function deny() returns trigger language plpgsql as $$ begin
        if new.v like 'hunter%' then raise exception 'not on sundays' using detail = new.v; end if; return new; end $$;
      create trigger deny before insert or update on t for each row execute function deny();
      alter table t enable always trigger deny`);
    const value = `'${secret}'`;
    await pair.source.sql(
      kind === "unique" || kind === "exclusion"
        ? `insert into t (id, v) values (2, ${value}), (3, ${value})`
        : `insert into t (id, v) values (2, ${value})`,
    );
    const error = await attempt(sync, "follow");
    const shown = [error, heard, await sync.status(), await sync.parked()];
    if (onRefusal === "stop") expect(error).toMatchObject({ code: "ROW_REFUSED" });
    else expect((await sync.parked()).rows.length).toBeGreaterThan(0);
    const text = inspect(shown, { depth: 12, showHidden: true });
    expect(text).not.toContain(secret);
    expect(text).toContain(says);
    // The labels of an enum are part of the table's shape, and no row's values.
    const sides = kind === "enum" ? [] : [pair.source, pair.target];
    for (const side of sides) expect(await state(side)).not.toContain(secret);
    await sync.drop();

    // The same rows in a copy.
    await sync.init();
    const again = await attempt(sync, "copy", { overwrite: true });
    const all = inspect([again, heard, await sync.status(), await sync.parked()], {
      depth: 12,
      showHidden: true,
    });
    expect(all).not.toContain(secret);
    if (onRefusal === "stop" && kind !== "trigger") expect(again).toBeInstanceOf(ReplicateError);
    for (const side of sides) expect(await state(side)).not.toContain(secret);
  });
});

async function attempt(sync: Sync, what: "copy" | "follow", options: object = {}): Promise<unknown> {
  try {
    if (what === "copy") await sync.copy(options);
    else for await (const batch of sync.follow({ untilCaughtUp: true })) void batch;
    return undefined;
  } catch (error) {
    return error;
  }
}

/** All that is kept in schema replicate. */
async function state(side: Pair["source"]): Promise<string> {
  const [row] = await side.sql<{ text: string }>(
    `select schema_to_xml('replicate', true, false, '')::text as text`,
  );
  return row?.text ?? "";
}
