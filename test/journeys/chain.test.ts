import { afterEach, expect, test } from "vitest";

import { compareDatabases } from "../support/compare.ts";
import { freePair, type Database } from "../support/database.ts";
import { describeSchema } from "../support/schema-description.ts";
import { until } from "../support/until.ts";
import { replicate, start, type Finished, type Running } from "../support/replicate.ts";

// A chain of two one-way syncs, A to B and B to C, by the command: what is written to A reaches each of the others once, and
// whatever is dropped first, nothing is left.

const schema = `
  create table item (id int primary key, name text not null, price numeric);
  create table part (item_id int references item on update cascade on delete cascade, n int, primary key (item_id, n));`;
/** Notes every change of a row, by whomever. */
const watch = `
  create unlogged table seen (op text, id int);
  create function note() returns trigger language plpgsql as $$
    begin insert into public.seen values (tg_op, coalesce(new.id, old.id)); return null; end $$;
  create trigger seen after insert or update or delete on item for each row execute procedure note();
  alter table item enable always trigger seen;`;
const rows = `
  insert into item select g, 'item ' || g, g / 3.0 from generate_series(1, 500) g;
  insert into part select g, n from generate_series(1, 500) g, generate_series(1, 3) n;`;
const tables = ["--tables", "item", "part"];

const running: Running[] = [];
afterEach(() => {
  for (const each of running.splice(0)) each.child.kill("SIGKILL");
});

interface Chain extends AsyncDisposable {
  readonly sides: readonly [Database, Database, Database];
  readonly env: Readonly<Record<"ab" | "bc", NodeJS.ProcessEnv>>;
  readonly before: readonly (readonly string[])[];
  readonly schemas: () => Promise<string[][]>;
  readonly run: (sync: "ab" | "bc", ...args: string[]) => Promise<Finished>;
  readonly follow: (sync: "ab" | "bc") => Running;
}

async function makeChain(): Promise<Chain> {
  const pair = await freePair({ leaks: "ignore" });
  const other = await freePair({ leaks: "ignore" });
  const sides = [pair.source, pair.target, other.target] as const;
  for (const side of sides) await side.sql(schema);
  await sides[0].sql(rows);
  const [a, b, c] = sides.map(({ url }) => url);
  const env = {
    ab: { REPLICATE_SOURCE: a, REPLICATE_TARGET: b, REPLICATE_NAME: "ab" },
    bc: { REPLICATE_SOURCE: b, REPLICATE_TARGET: c, REPLICATE_NAME: "bc" },
  };
  const schemas = async (): Promise<string[][]> =>
    await Promise.all(sides.map(async ({ url }) => await describeSchema(url)));
  return {
    sides,
    env,
    before: await schemas(),
    schemas,
    run: async (sync, ...args) => await replicate(args, { env: env[sync] }),
    follow: (sync) => {
      const started = start(["run", ...tables], { env: env[sync] });
      running.push(started);
      return started;
    },
    [Symbol.asyncDispose]: async () => {
      await pair.dispose();
      await other.dispose();
    },
  };
}

async function isEqual([a, b, c]: Chain["sides"]): Promise<boolean> {
  const names = ["public.item", "public.part"];
  const found = await Promise.all([b, c].map(async ({ url }) => await compareDatabases(a.url, url, names)));
  return found.every(({ differences }) => differences.length === 0);
}

/** Deltas that are kept on any of the databases. */
async function deltas(sides: readonly Database[]): Promise<number> {
  let bytes = 0;
  for (const side of sides) {
    const [row] = await side.sql<{ bytes: number }>(
      `select coalesce(sum(pg_relation_size(c.oid)), 0)::int as bytes from pg_class c
       where c.relkind = 'r' and c.relnamespace = to_regnamespace('replicate') and c.relname like 'delta%'`,
    );
    bytes += row?.bytes ?? 0;
  }
  return bytes;
}

for (const order of [
  ["ab", "bc"],
  ["bc", "ab"],
] as const) {
  test(`a chain, dropped in the order ${order.join(", ")}`, { timeout: 180_000 }, async () => {
    await using chain = await makeChain();
    const { sides, run } = chain;
    const [a, b, c] = sides;
    const runners = { ab: chain.follow("ab"), bc: undefined as Running | undefined };
    await runners.ab.says("following");
    runners.bc = chain.follow("bc");
    await until("both are copied", async () => await isEqual(sides));
    await until("both follow", async () => (await run("bc", "status")).stdout.includes("bc: following"));
    // From here on every change is one of a batch.
    for (const side of [b, c]) await side.sql(watch);
    await a.sql(`
      insert into item select g, 'new', g from generate_series(501, 600) g;
      update item set price = price + 1 where id between 101 and 200;
      delete from item where id <= 50;
      update item set id = 1000 where id = 300`);
    await until("all have it", async () => await isEqual(sides));
    await until("nothing is kept any more", async () => (await deltas(sides)) === 0);
    const expected = [
      { op: "DELETE", n: 51, times: 1 },
      { op: "INSERT", n: 101, times: 1 },
      { op: "UPDATE", n: 100, times: 1 },
    ];
    for (const side of [b, c]) {
      const seen = await side.sql(
        `select op, count(*)::int as n, max(times)::int as times
         from (select op, id, count(*) as times from seen group by op, id) as x group by op order by op`,
      );
      expect(seen).toEqual(expected);
      await side.sql("drop trigger seen on item; drop function note; drop table seen");
    }

    // One goes, the other goes on.
    const [first, second] = order;
    expect((await run(first, "drop", "--yes")).code).toBe(4);
    const end = async (sync: "ab" | "bc"): Promise<void> => {
      runners[sync]?.child.kill("SIGTERM");
      expect((await runners[sync]?.finished)?.code).toBe(0);
    };
    await end(first);
    expect(await run(first, "drop", "--yes")).toMatchObject({ code: 0 });
    const from = second === "ab" ? a : b;
    await from.sql("insert into item values (2000, 'after the other has gone', 1)");
    const to = second === "ab" ? b : c;
    await until("it goes on", async () => (await to.sql("select 1 from item where id = 2000")).length === 1);
    await end(second);
    expect(await run(second, "drop", "--yes")).toMatchObject({ code: 0 });
    expect(await chain.schemas()).toEqual(chain.before);
  });
}

test("a chain whose middle is gone: neither end keeps a trace", { timeout: 180_000 }, async () => {
  await using chain = await makeChain();
  const { sides, run } = chain;
  const [a, , c] = sides;
  for (const sync of ["ab", "bc"] as const)
    expect(await run(sync, "run", ...tables, "--until-caught-up")).toMatchObject({ code: 0 });
  expect(await isEqual(sides)).toBe(true);
  // Nobody listens there.
  const gone = "postgresql://nobody@127.0.0.1:1/gone";
  const drop = async (name: "ab" | "bc", side: "source" | "target"): Promise<Finished> =>
    await replicate(["drop", "--yes", `--${side}-only`], {
      env: { ...chain.env[name], [name === "ab" ? "REPLICATE_TARGET" : "REPLICATE_SOURCE"]: gone },
    });
  expect(await drop("ab", "source")).toMatchObject({ code: 0 });
  expect(await drop("bc", "target")).toMatchObject({ code: 0 });
  for (const [side, before] of [[a, chain.before[0]], [c, chain.before[2]]] as const)
    expect(await describeSchema(side.url)).toEqual(before); // prettier-ignore
  // Should it come back, it is told; and given up by itself, it has no trace either.
  expect((await run("ab", "follow", "--once")).stderr).toMatch(/SOURCE_LOST/);
  for (const [sync, flag] of [["bc", "--source-only"], ["ab", "--target-only"]] as const)
    expect(await run(sync, "drop", "--yes", flag)).toMatchObject({ code: 0 }); // prettier-ignore
  expect(await chain.schemas()).toEqual(chain.before);
});
