import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect } from "vitest";

import { replicate, start, type Finished } from "./replicate.ts";
import { assertNothingLost, rows, schema, startApplication } from "./cutover-setup.ts";
import { compareDatabases } from "./compare.ts";
import { leastPrivilegedPair, type LeastPrivilegedSide } from "./least-privileged-pair.ts";
import { describeSchema } from "./schema-description.ts";

// A whole migration as an engineer does it who owns the tables and nothing more: from an empty target to the switched
// application and back, by the commands alone, while the application writes.

const more = `
  create table remark (writer int, text text);
  create table line (id int primary key, account_id bigint references account);
  create sequence never_called;
  create sequence wheel minvalue 1 maxvalue 20 cycle;
  create view rich as select id, balance from account where balance > 10;
  create materialized view totals as select writer, count(*) as entries from entry group by writer;
  create unique index on totals (writer);
`;

const moreRows = `
  insert into remark select g % 3, 'same' from generate_series(1, 30) g;
  insert into line select g, g from generate_series(1, 50) g;
  select nextval('wheel') from generate_series(1, 13);
`;

/** As the pool of an application would: what has no key is only ever added to. */
const writes = (writer: number, number: number): string =>
  number % 5 === 0 ? `insert into remark values (${writer}, 'live');` : "";

export interface MigrationReport {
  /** Seconds for which the application could not write. */
  fences: number[];
  committed: number;
}

export async function takeMigrationThrough(versions: {
  source: string;
  target: string;
}): Promise<MigrationReport> {
  await using pair = await leastPrivilegedPair(versions);
  const { source, target } = pair;
  const folder = mkdtempSync(join(tmpdir(), "replicate-migration-"));
  const env = { REPLICATE_SOURCE: source.url, REPLICATE_TARGET: target.url, REPLICATE_NAME: "migration" };
  const run = async (code: number, ...args: string[]): Promise<Finished> => {
    const finished = await replicate(args, { env });
    expect(finished.code, `${args.join(" ")}\n${finished.stdout}${finished.stderr}`).toBe(code);
    return finished;
  };
  const json = async <Result>(code: number, ...args: string[]): Promise<Result> =>
    JSON.parse((await run(code, ...args, "--json")).stdout) as Result;

  await source.sql(`${schema}${more}`);
  await source.sql(`${rows}${moreRows}`);
  // Rows that break a foreign key: somebody had switched the checks off.
  await source.asAdmin(
    "set session_replication_role = replica; insert into line values (99, 99999); reset session_replication_role",
  );
  await source.sql("refresh materialized view totals");
  const before = await describeSchema(source.adminUrl);

  const application = startApplication(source.writer.url, { writers: 3, pauseMs: 15, also: writes });
  const opened = { target: join(folder, "target"), source: join(folder, "source") };
  const secrets = setInterval(() => {
    if (existsSync(opened.source)) application.switchTo(source.writer.url);
    else if (existsSync(opened.target)) application.switchTo(target.writer.url);
  }, 10);
  const fences: number[] = [];
  try {
    await run(0, "schema");
    const { findings } = await json<{ findings: { severity: string; subject: string }[] }>(1, "preflight");
    const blocking = findings.filter(({ severity }) => severity === "blocking");
    expect(blocking.map(({ subject }) => subject).toSorted()).toEqual(["public.remark", "public.visit"]);
    await run(0, "preflight", "--keyless", "reload");
    await run(0, "init", "--keyless", "reload");
    await run(0, "copy");
    const follower = start(["follow"], { env });
    try {
      await follower.says("following");
      await run(0, "schema", "--section", "post-data");
      // What is reloaded as a whole may be on its way.
      await expect.poll(async () => (await replicate(["verify"], { env })).code, { timeout: 60_000 }).toBe(0);
      const rehearsed = await json<{ rehearsal: { blockers: unknown[] } }>(0, "cutover", "--rehearse");
      expect(rehearsed).toMatchObject({ rehearsal: { blockers: [] } });

      type Switched = { primary: string; fenceSeconds: number; leftInvalid: { name: string }[] };
      const there = await json<Switched>(0, "cutover", "--yes", "--on-open", `touch ${opened.target}`);
      expect(there.primary).toBe("target");
      expect(JSON.stringify(there.leftInvalid)).toContain("line_account_id_fkey");
      fences.push(there.fenceSeconds);
      expect(await json<{ phase: string }>(0, "status")).toMatchObject({ phase: "cut-over" });
      await expect(source.sql("insert into touched values (7)")).rejects.toMatchObject({ code: "25006" });
      await sleep(1500);

      const back = await json<Switched>(0, "rollback", "--yes", "--on-open", `touch ${opened.source}`);
      expect(back.primary).toBe("source");
      fences.push(back.fenceSeconds);
      await expect(target.sql("insert into touched values (7)")).rejects.toMatchObject({ code: "25006" });
      await sleep(1000);
    } finally {
      follower.child.kill("SIGTERM");
      expect((await follower.finished).code).toBe(0);
    }
  } finally {
    await application.stop();
    clearInterval(secrets);
    rmSync(folder, { recursive: true });
  }
  await run(0, "follow", "--until-caught-up");
  expect(application.refused).toBeGreaterThan(0);
  expect((await compareDatabases(source.adminUrl, target.adminUrl)).differences).toEqual([]);
  for (const side of [target, source]) {
    await assertNothingLost(side, application);
    expect(await keyless(side)).toEqual(await keyless(source));
  }
  // Ids go on on either side: the trigger of the side that was written to has counted every entry once.
  expect(await source.sql("select times - (select count(*)::int from entry) as extra from touched")).toEqual([
    { extra: 0 },
  ]);
  await run(0, "cutover", "--finish", "--yes");
  await run(0, "drop", "--yes");
  // Its rows break it, which was not to be seen before: it had to go for the time of the way back, and can only return NOT VALID.
  const broken = before.map((line) =>
    line.replace(/(constraint public.line line_account_id_fkey .*) true $/, "$1 NOT VALID false "),
  );
  expect(await describeSchema(source.adminUrl)).toEqual(broken);
  await target.sql(
    "insert into account (name) values ('goes on'); insert into line values (100, 1); refresh materialized view totals",
  );
  return {
    fences,
    committed: [...application.committed.values()].reduce((sum, { length }) => sum + length, 0),
  };
}

async function keyless(side: LeastPrivilegedSide): Promise<unknown> {
  return await side.sql(`
    select who || ' ' || what as v, count(*)::int as n from visit group by 1
    union all select 'remark ' || writer || ' ' || text, count(*)::int from remark group by 1 order by 1`);
}
