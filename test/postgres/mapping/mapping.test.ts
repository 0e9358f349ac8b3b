import { describe, expect, it } from "vitest";

import { freePair } from "../../support/database.ts";
import { each, mapped, refusals, rowsOf, verify } from "../../support/mapping-setup.ts";

// Tables that are filtered, renamed and computed, by the command alone.

describe("a mapped table", () => {
  it("has filtered rows and other columns on the target, in copy, follow and verify", async () => {
    await using pair = await freePair();
    await pair.source.sql(`
      create table users (id bigint primary key, email text, name varchar(40), born date, deleted_at timestamptz, legacy_flag bool);
      insert into users
      select n, 'user' || n || '@example.com', 'User ' || n, date '1990-01-01' + n,
             case when n % 3 = 0 then now() end, true from generate_series(1, 30) n`);
    await pair.target.sql(`
      create schema app;
      create table app.people (user_id bigint primary key, email text, full_name text, birth_year int, region char(2) not null)`);
    const run = mapped(pair, {
      tables: ["public.users"],
      overrides: {
        "public.users": {
          target: "app.people",
          where: "deleted_at is null -- those that are there",
          columns: {
            id: { to: "user_id" },
            email: "md5(email)",
            name: { to: "full_name" },
            born: { to: "birth_year", as: "extract(year from users.born)::integer" },
            region: "'eu'::character(2)",
            deleted_at: null,
            legacy_flag: null,
          },
        },
      },
    });
    await each(run, "preflight", "init", "copy", "follow --until-caught-up");
    const wanted = `select id, md5(email), name, extract(year from born)::int, 'eu' from users where deleted_at is null order by 1`;
    const found = `select * from app.people order by 1`;
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));
    expect((await rowsOf(pair.target, found)).length).toBe(20);

    // Out of the filter, into it, changed inside of it, gone, come, and with another key.
    await pair.source.sql(`
      update users set deleted_at = now() where id = 1;
      update users set deleted_at = null where id = 3;
      update users set email = 'new@example.com' where id = 2;
      update users set email = 'unseen@example.com' where id = 6;
      delete from users where id in (4, 9);
      insert into users values (100, 'a', 'A', '2000-02-02', null, false), (101, 'b', 'B', '2000-02-02', now(), false);
      update users set id = 200 where id = 5`);
    await each(run, "follow --until-caught-up");
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));
    expect(await verify(run)).toMatchObject({ equal: true, tables: [{ rows: 20 }] });

    await pair.target.sql(`
      update app.people set email = 'changed' where user_id = 2;
      update app.people set birth_year = 1 where user_id = 7;
      delete from app.people where user_id = 8;
      insert into app.people values (101, 'x', 'X', 1, 'eu')`);
    const { equal, tables } = await verify(run);
    expect(equal).toBe(false);
    expect(tables[0]?.differences).toEqual([
      { key: { id: 2 }, kind: "changed", columns: ["email"] },
      { key: { id: 7 }, kind: "changed", columns: ["born"] },
      { key: { id: 8 }, kind: "missing", columns: [] },
      { key: { id: 101 }, kind: "extra", columns: [] },
    ]);
    await verify(run, "--repair");
    await each(run, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));

    // TRUNCATE, and a whole re-read.
    await pair.source.sql(
      "truncate users; insert into users values (1, 'a', 'A', '2000-02-02', null, false)",
    );
    await each(run, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));
    await pair.target.sql("insert into app.people values (50, 'x', 'X', 1, 'eu')");
    await pair.source.sql(`do $$ declare d text; begin
      select 'replicate.delta_' || id || '_' || active into d from replicate.capture;
      execute 'insert into ' || d || ' (truncated) values (0)'; end $$`);
    await each(run, "follow --until-caught-up", "verify");
    expect(await rowsOf(pair.target, found)).toEqual(await rowsOf(pair.source, wanted));
    await each(run, "drop --yes");
  });

  it("says what to do where its source changes, and goes on after it", async () => {
    await using pair = await freePair();
    await pair.source.sql(`
      create table users (id int primary key, email text, name text, legacy_flag bool, note text);
      insert into users select n, 'e' || n, 'n' || n from generate_series(1, 5) n`);
    await pair.target.sql(
      "create table users (id int primary key, email text, full_name text, note text, legacy_flag bool)",
    );
    const run = mapped(pair, {
      overrides: {
        "public.users": {
          where: "id > 1",
          columns: { email: "md5(email)", name: { to: "full_name" }, legacy_flag: null },
        },
      },
    });
    await each(run, "init", "copy", "follow --until-caught-up");
    const alike = async (): Promise<void> => {
      await each(run, "follow --until-caught-up", "verify");
      const wanted = "select id, md5(email), name, note from users where id > 1 order by id";
      expect(await rowsOf(pair.target, "select id, email, full_name, note from users order by id")).toEqual(
        await rowsOf(pair.source, wanted),
      );
    };
    // What is left out may go; a column more is wanted on the target, like everywhere.
    await pair.source.sql(
      "alter table users drop column legacy_flag; insert into users values (6, 'e6', 'n6')",
    );
    await alike();
    await each(run, "init");
    await pair.source.sql(
      "alter table users add column age int; insert into users values (7, 'e7', 'n7', null, 7)",
    );
    expect(await refusals(run, "follow", "--once")).toEqual([
      'public.users: column "age" is missing on the target',
    ]);
    await pair.source.sql("alter table users drop column age");
    await alike();
    // A column of an expression, and one that has another name on the target.
    await pair.source.sql(
      "alter table users rename email to mail; alter table users rename name to called; delete from users where id = 2",
    );
    expect(await refusals(run, "follow", "--once")).toEqual([
      'public.users: columns.email: the source says: column "email" does not exist',
      "public.users: columns.name: the source has no such column",
      'public.users: column "mail" is missing on the target',
      'public.users: column "called" is missing on the target',
    ]);
    await pair.source.sql("alter table users rename mail to email; alter table users rename called to name");
    await alike();
    // All rows are read again, through the mapping.
    await pair.source.sql("alter table users alter column note type varchar(40) using 'new'");
    await pair.target.sql("alter table users alter column note type varchar(40)");
    await alike();
  });
});
