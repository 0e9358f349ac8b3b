import { expect, test } from "vitest";

import { compareDatabases } from "../../support/compare.ts";
import { freePair } from "../../support/database.ts";

// The comparison that other tests rely on, by itself.

test("the tests' own comparison finds every kind of difference", async () => {
  await using pair = await freePair();
  const tables = `
    create table users (name text, id int, primary key (id), note text);
    insert into users select 'name ' || g, g, nullif('note', 'note') from generate_series(1, 5000) g;
    create table keyless (v text); insert into keyless values ('a'), ('a'), ('b');
    create schema "Odd"; create table "Odd"."a.b" ("K 1" text, k2 numeric, v numeric, primary key ("K 1", k2));
    insert into "Odd"."a.b" values ('é''"\\', 0.1, 1.0), ('', 'NaN', null)`;
  await Promise.all([pair.source.sql(tables), pair.target.sql(tables)]);
  const compare = async (): Promise<string[]> =>
    (await compareDatabases(pair.source.url, pair.target.url)).differences.map(({ table, key, kind }) =>
      [table, key, kind].join(" "),
    );
  expect(await compare()).toEqual([]);
  expect((await compareDatabases(pair.source.url, pair.target.url)).rows).toBe(5005);
  await pair.target.sql(
    `delete from users where id in (1, 5000); insert into users (id) values (0), (10000);
     update users set note = '' where id = 17;
     insert into keyless values ('b');
     update "Odd"."a.b" set v = 1.00 where k2 = 0.1`,
  );
  expect(await compare()).toEqual([
    `"Odd"."a.b" E'é''"\\\\','0.1' changed`,
    `public.keyless 'b' duplicate`,
    `public.users '0' extra`,
    `public.users '1' missing`,
    `public.users '10000' extra`,
    `public.users '17' changed`,
    `public.users '5000' missing`,
  ]);
  await pair.target.sql("alter table users rename to persons; alter table persons add column more int");
  const renamed = await compareDatabases(pair.source.url, pair.target.url, [
    { source: "public.users", target: "public.persons" },
  ]);
  expect(renamed.differences).toHaveLength(5);
});
