import { expect, test } from "vitest";
import { replicate } from "../../support/replicate.ts";
import { quoteName } from "../../support/admin.ts";
import { freePair } from "../../support/database.ts";
import { followUntilCaughtUp, onBoth, openCopySync } from "../../support/copy-setup.ts";

// What a move of tables leaves behind is told before the switch, with the statements that bring it.

test("settings of the database and of its roles, and materialized views", async () => {
  await using pair = await freePair();
  const role = await pair.source.createRole({ prefix: "app" });
  const name = quoteName(role.name);
  await pair.target.sql(`create role ${name}`);
  try {
    await onBoth(
      pair,
      `create schema app; create table app.t (id int primary key); create materialized view app.second as select 1 as x with no data;
       create materialized view app.first as select id from app.t; create materialized view app.third as select id from app.first;
       create materialized view app.empty as select id from app.t with no data; refresh materialized view app.second`,
    );
    const [source, target] = [quoteName(pair.source.name), quoteName(pair.target.name)];
    await pair.source.sql(`
      alter database ${source} set search_path = app, "Odd Schema", public; alter database ${source} set timezone = 'America/New_York';
      alter database ${source} set app.jwt_secret = 'hunter2'; alter database ${source} set lock_timeout = '5s';
      alter role ${name} in database ${source} set work_mem = '8MB'; alter role ${name} set statement_timeout = '1min'`);
    await pair.target.sql(
      `alter database ${target} set lock_timeout = '5s'; alter database ${target} set timezone = 'UTC'`,
    );
    const { sync, of } = await openCopySync(pair);
    await using _ = sync;
    const remedies = [
      `alter database ${target} set "search_path" = app, "Odd Schema", public;`,
      `alter database ${target} set "TimeZone" = 'America/New_York';`,
      `alter database ${target} set "app"."jwt_secret" = '…';`,
      `alter role ${name} in database ${target} set "work_mem" = '8MB';`,
      `alter role ${name} set "statement_timeout" = '1min';`,
      `refresh materialized view "app"."first";\nrefresh materialized view "app"."second";\nrefresh materialized view "app"."third";`,
    ];
    const { findings } = await sync.preflight();
    const told = findings.filter(({ subject }) => /^(setting |materialized views)/.test(subject));
    expect(told.map(({ severity }) => severity)).toEqual(remedies.map(() => "warning"));
    for (const remedy of remedies)
      expect(told.some((finding) => finding.remedy?.includes(remedy))).toBe(true);
    expect(JSON.stringify(findings)).not.toContain("hunter2");
    const settings = remedies.filter((remedy) => remedy.startsWith("alter "));
    const { leftOut } = await sync.schema({ dryRun: true });
    expect(leftOut.flatMap((each) => each.remedy ?? []).toSorted()).toEqual(settings.toSorted());
    const printed = await replicate(["schema", "--dry-run"], {
      env: { REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url },
    });
    for (const remedy of settings) expect(printed.stdout).toContain(`  ${remedy}\n`);
    expect(printed.stdout).not.toContain("hunter2");
    await sync.init();
    await sync.copy();
    await followUntilCaughtUp(sync);
    const { rehearsal } = await sync.cutover({ rehearse: true });
    for (const remedy of remedies)
      expect(rehearsal?.warnings.some((each) => each.remedy?.includes(remedy))).toBe(true);
    // As they are printed, they settle it.
    for (const remedy of remedies) if (!remedy.includes("…")) await pair.target.sql(remedy);
    const after = await sync.preflight();
    expect(
      after.findings.filter(({ subject }) => subject.startsWith("setting ")).map(({ subject }) => subject),
    ).toEqual(["setting app.jwt_secret"]);
    await sync.cutover();
    const warned = of("warning").map(({ message }) => message);
    expect(warned.some((message) => message.includes("app.jwt_secret"))).toBe(true);
    expect(warned.some((message) => message.includes(`refresh materialized view "app"."first"`))).toBe(true);
    expect(JSON.stringify(warned)).not.toContain("hunter2");
  } finally {
    await pair.target.sql(`drop owned by ${name}; drop role ${name}`);
  }
});
