import { describe, expect, it } from "vitest";

import { json } from "../../support/replicate.ts";
import { freePair } from "../../support/database.ts";
import { each, mapped, refusals, rowsOf } from "../../support/mapping-setup.ts";

// Several overrides that fit one table: what reaches the target, and what preflight says of those that do nothing.

const users = { where: "deleted_at is null", columns: { email: "md5(email)" } };
const wide = { capture: "statement" };

describe("overrides of one table", () => {
  it.each([
    ["wide", { "public.*": wide, "public.users": users }],
    ["narrow", { "public.users": users, "public.*": wide }],
    [
      "mask in the wide",
      { "public.u*": { columns: users.columns }, "public.users": { where: users.where }, "*.*": wide },
    ],
  ])("hold together, whichever is first (%s)", async (_, overrides) => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target])
      await side.sql(`
        create table users (id int primary key, email text, deleted_at timestamptz);
        create table orders (id int primary key, v text)`);
    await pair.source.sql(`
      insert into users values (1, 'one@example.com', null), (2, 'two@example.com', now()), (3, 'three@example.com', null);
      insert into orders values (1, 'a')`);
    const run = mapped(pair, { overrides });
    await each(run, "init", "copy", "follow --until-caught-up");
    const wanted = `select id, md5(email) from users where deleted_at is null order by id`;
    const found = `select id, email from users order by id`;
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));
    await pair.source.sql(`
      update users set deleted_at = null where id = 2;
      update users set deleted_at = now() where id = 3;
      update users set email = 'new@example.com' where id = 1`);
    await each(run, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));
    expect(await rowsOf(pair.target, `select count(*) from users where email like '%@%'`)).toEqual([["0"]]);
    // Statement triggers of the wide pattern, on both tables.
    const methods = `select distinct method from replicate.capture`;
    expect(await rowsOf(pair.source, methods)).toEqual([["statement"]]);
  });

  it("are shown by preflight --show-settings, each with where it comes from", async () => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target])
      await side.sql(`
        create table users (id int primary key, email text, deleted_at timestamptz);
        create table orders (id int primary key)`);
    const run = mapped(pair, {
      overrides: { "*.*": { onRefusal: "park" }, "public.*": { onRefusal: "stop" }, "public.users": users },
    });
    const report = json<{ settings: unknown }>(await run("preflight", "--show-settings", "--json"));
    expect(report.settings).toEqual([
      {
        table: "public.orders",
        target: "public.orders",
        settings: { onRefusal: { value: "stop", from: "overrides.public.*" } },
      },
      {
        table: "public.users",
        target: "public.users",
        settings: {
          where: { value: "deleted_at is null", from: "overrides.public.users" },
          "columns.email": { value: "md5(email)", from: "overrides.public.users" },
          onRefusal: { value: "stop", from: "overrides.public.*" },
        },
      },
    ]);
    const { stdout } = await run("preflight", "--show-settings");
    expect(stdout).toContain(
      'public.users\n  where: "deleted_at is null"  (overrides.public.users)\n  columns.email: "md5(email)"  (overrides.public.users)\n',
    );
    expect((await run("preflight", "--json")).stdout).not.toContain('"settings"');
  });

  it("that do nothing are findings", async () => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target])
      await side.sql(`
        create table users (id int primary key, email text);
        create table audit (id int primary key);
        create materialized view seen as select 1 as one;
        create table event (id int, day date, primary key (id, day)) partition by range (day);
        create table event_2024 partition of event for values from ('2024-01-01') to ('2025-01-01')`);
    const run = mapped(pair, {
      exclude: ["audit"],
      overrides: {
        usres: { where: "true" },
        audit: { capture: "row" },
        "public.event_2024": { where: "id > 1" },
        seen: { capture: "row" },
        "public.user?": { capture: "row", onRefusal: "stop", columns: { email: "'x'::text" } },
        "*.users": { onRefusal: "park" },
        "p*.users": { keyless: "refuse" },
        "public.users": { capture: "statement", columns: { email: "lower(email)" }, keyless: null },
      },
    });
    interface Finding {
      severity: string;
      subject: string;
      message: string;
    }
    const { findings } = json<{ findings: Finding[] }>(await run("preflight", "--json"));
    const own = findings
      .filter(({ subject }) => subject.startsWith("overrides."))
      .map(({ severity, subject, message }) => `${severity} ${subject}: ${message}`);
    expect(own).toEqual([
      'blocking overrides.usres: fits no table on the source; did you mean "users"?',
      "warning overrides.audit: has no effect: public.audit is excluded, or not among the chosen tables",
      "blocking overrides.public.event_2024: has no effect: public.event_2024, a partition, is replicated with its root, whose settings hold",
      "warning overrides.seen: has no effect: public.seen is not replicated",
      "warning overrides.public.user?: has no effect on any table in columns.email, capture, onRefusal: before it go public.users, *.users",
      "warning overrides.p*.users: has no effect on any table in keyless: narrower ones take it back",
    ]);
    expect((await run("init")).code).toBe(1);
    expect(await rowsOf(pair.source, "select to_regnamespace('replicate')")).toEqual([[null]]);
  });

  it("may not set a column twice, by an expression and a discriminator", async () => {
    await using pair = await freePair();
    await pair.source.sql("create table t (id int primary key, v text)");
    await pair.target.sql("create table t (id int, v text, primary key (id, v))");
    const run = mapped(pair, {
      overrides: { "public.*": { columns: { v: "'x'::text" } }, "public.t": { discriminator: { v: "y" } } },
    });
    expect(await refusals(run, "preflight")).toContain(
      "public.t: discriminator.v: is set by columns already",
    );
  });
});
