import { expect, test } from "vitest";

import { openSync } from "../../../src/index.ts";
import { freePair } from "../../support/database.ts";

// What stands in the way of a policy is found before anything is changed.

test("the column of { latest } has to be there, and to have an order", async () => {
  await using pair = await freePair();
  const table = (name: string, more: string): string => `create table ${name} (id int primary key, ${more});`;
  const both = [
    table("good", "at timestamptz, tags text[], mood varchar(9)"),
    table("unordered", "at json"),
    table("computed", "at int generated always as (id + 1) stored"),
  ].join("\n");
  await pair.source.sql(both + table("misspelt", "updated_at date") + table("renamed", "at int"));
  await pair.target.sql(both + table("misspelt", "updated_at date") + table("renamed", "att int"));
  await using sync = await openSync({
    source: pair.source.url,
    target: pair.target.url,
    direction: "both",
    conflict: { latest: "at" },
    overrides: { misspelt: { conflict: { latest: "updatedat" } } },
  });
  const { findings } = await sync.preflight();
  const about = findings.flatMap(({ severity, subject, message }) =>
    message.includes("{ latest: ") ? [`${severity} ${subject}: ${message.replace(/^.*, but /, "")}`] : [],
  );
  expect(about.toSorted((a, b) => (a < b ? -1 : 1))).toEqual([
    "blocking public.computed: the source has no such column that is replicated",
    "blocking public.computed: the target has no such column that is replicated",
    'blocking public.misspelt: the source has no such column that is replicated; did you mean "updated_at"?',
    'blocking public.misspelt: the target has no such column that is replicated; did you mean "updated_at"?',
    'blocking public.renamed: the target has no such column that is replicated; did you mean "att"?',
    'blocking public.unordered: there is no greater or lesser in "at", which is json',
  ]);
  await expect(sync.init()).rejects.toMatchObject({ code: "PREFLIGHT_BLOCKED" });
  for (const column of ["tags", "mood"]) {
    await using other = await openSync({
      source: pair.source.url,
      target: pair.target.url,
      tables: ["good"],
      conflict: { latest: column },
    });
    expect((await other.preflight()).findings.filter(({ message }) => message.includes("latest"))).toEqual(
      [],
    );
  }
});
