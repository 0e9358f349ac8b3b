import { inspect } from "node:util";
import { describe, expect, it } from "vitest";

import { asReplicateError } from "../../../src/postgres/sqlstate.ts";
import { isUnknownLabel, saidBy, stageIn, withoutValues } from "../../../src/postgres/server-words.ts";

/** As the driver gives it. */
function serverError(code: string, message: string, more: Record<string, string> = {}): Error {
  return Object.assign(new Error(message), { name: "error", severity: "ERROR", code, ...more });
}

const secret = "hunter2@example.com";
const row = `Failing row contains (1, ${secret}, null).`;

/** What servers send of a rejected row: SQLSTATE, message, DETAIL, CONTEXT. */
const kinds: readonly (readonly [string, string, string, string])[] = [
  ["22P02", `invalid input syntax for type integer: "${secret}"`, "", `COPY stage_7, line 1, column v: "${secret}"`],
  ["22P02", `ungültige Eingabesyntax für Typ integer: »${secret}«`, "", `COPY stage_7, Zeile 1, Spalte v: »${secret}«`],
  ["22P02", `invalid input value for enum mood: "${secret}"`, "", ""],
  ["22P02", `malformed array literal: "${secret}"`, `Unexpected "${secret}".`, ""],
  ["22P02", `invalid input syntax for type json`, `Token "${secret}" is invalid.`, `JSON data, line 1: ${secret}`],
  ["22003", `value "${secret}" is out of range for type integer`, "", ""],
  ["22007", `invalid input syntax for type date: "${secret}"`, "", ""],
  ["22008", `date/time field value out of range: "${secret}"`, "", ""],
  ["22023", `time zone "${secret}" not recognized`, "", ""],
  ["2200N", `invalid XML content`, `line 1: ${secret}`, ""],
  ["22032", `invalid JSON text ${secret}`, secret, ""],
  ["2201B", `invalid regular expression: ${secret}`, "", ""],
  ["22001", "value too long for type character varying(5)", "", `COPY t, line 1, column v: "${secret}"`],
  ["23502", `null value in column "v" of relation "t" violates not-null constraint`, row, `COPY t, line 1: "${secret}"`],
  ["23514", `new row for relation "t" violates check constraint "c"`, row, ""],
  ["23514", `neue Zeile für Relation »t« verletzt Check-Constraint »c«`, `Fehlgeschlagene Zeile enthält (1, ${secret}).`, ""],
  ["23514", `no partition of relation "t" found for row`, `Partition key of the failing row contains (v) = (${secret}).`, ""],
  ["23505", `duplicate key value violates unique constraint "u"`, `Key (email)=(${secret}) already exists.`, ""],
  ["23505", `doppelter Schlüsselwert verletzt Unique-Constraint »u«`, `Schlüssel »(email)=(${secret})« existiert bereits.`, ""],
  ["23505", `could not create unique index "u"`, `Key (lower(email), a)=(${secret}, (b)=(${secret})) is duplicated.`, ""],
  ["23503", `insert or update on table "t" violates foreign key constraint "f"`, `Key (a, "B ""b")=(${secret}, 1) is not present in table "p".`, ""],
  ["23P01", `conflicting key value violates exclusion constraint "e"`, `Key (during)=([${secret},)) conflicts with existing key (during)=([${secret},)).`, ""],
  ["44000", `new row violates check option for view "v"`, row, ""],
  ["42501", `new row violates row-level security policy for table "t"`, "", `COPY t, line 1: "${secret}"`],
  ["54000", "index row size 2728 exceeds btree maximum 2704", "", `COPY t, line 9: "${secret}"`],
  ["P0001", "not on sundays", secret, `PL/pgSQL function f() line 3 at RAISE\nSQL statement "insert into t values ('${secret}')"`],
  ["57014", "canceling statement due to user request", "", `COPY t, line 1: "${secret}"`],
  ["40P01", "deadlock detected", "Process 1 waits for ShareLock on transaction 2; blocked by process 3.", `while inserting index tuple "${secret}"`],
  ["XX001", "invalid page in block 1", secret, secret],
]; // prettier-ignore

describe("what a server says", () => {
  it.each(kinds)("of %s (%s) has no value of the row in it", (code, message, detail, where) => {
    const error = serverError(code, message, { detail, where, internalQuery: secret, hint: secret });
    const known = asReplicateError(error, "doing it");
    const around = asReplicateError(new Error(message, { cause: error }), "doing it");
    for (const shown of [
      saidBy(error),
      saidBy({ code, message, detail }),
      known.message,
      inspect(known, { depth: 10, showHidden: true }),
      inspect(around, { depth: 10, showHidden: true }),
      JSON.stringify(known),
      known.stack,
      (known.cause as Error).stack,
      inspect(withoutValues(error), { depth: 10, showHidden: true }),
    ])
      expect(shown).not.toContain("hunter2");
    expect(known.sqlstate).toBe(code);
    expect(saidBy(error).length).toBeGreaterThan(10);
  });

  it.each([
    ["23505", "Key (email)=(x) already exists.", "m (email)"],
    ["23505", "Schlüssel »(email, b)=(x, 1)« existiert bereits.", "m (email, b)"],
    ["23503", `Key (a, "B (b)")=(x, 1) is not present in table "p".`, `m (a, "B (b)")`],
    ["23514", "Partition key of the failing row contains (day) = (2020-01-01).", "m (day)"],
    ["23505", "Key (lower(email))=((a)=(b)) already exists.", "m"],
    ["23514", "Failing row contains (1, (a)=(b)).", "m"],
    ["23502", "Failing row contains (a)=(b).", "m"],
    ["2BP01", "view v depends on table t", "m (view v depends on table t)"],
    ["40P01", "Process 1 waits", "m (Process 1 waits)"],
  ])("of %s with %s names columns and objects", (code, detail, said) => {
    expect(saidBy(serverError(code, "m", { detail }))).toBe(said);
  });

  it("names the column and the enum where the server does so in a field of its own", () => {
    expect(saidBy(serverError("22P02", secret, { column: "age" }))).toBe(
      "a value cannot be read as the column's type (column age)",
    );
    const label = serverError("22P02", secret, { routine: "enum_in" });
    expect(isUnknownLabel(label)).toBe(true);
    expect(saidBy(label)).toBe("a value is no label of the column's enum");
    expect(withoutValues(label)).toMatchObject({ code: "22P02", routine: "enum_in", severity: "ERROR" });
  });

  it.each([
    [`COPY stage_7, line 1, column k1: "x"`, "stage_7 k1"],
    [`COPY stage_7, Zeile 1, Spalte k12: »x«`, "stage_7 k12"],
    [`COPY stage_7_text, line 1, column c1: "k1"`, "stage_7_text"],
    [`COPY stage_7, line 1: "k1"`, "stage_7"],
    [`COPY t, line 1, column k1: "stage_7"`, "stage_7"],
    [undefined, undefined],
  ])("of a COPY keeps whose it was: %s", (where, stage) => {
    expect(stageIn(where)).toBe(stage);
  });
});
