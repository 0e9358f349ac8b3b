import { describe, expect, it } from "vitest";

import { ident, literal, load } from "../../../src/postgres/sql.ts";
import { withoutValues } from "../../../src/postgres/trace.ts";
import { seededRandom } from "../../support/random.ts";

// What the log of statements shows of one: words and names, and never a value.

describe("a statement in the log", () => {
  it.each([
    ["select 1", "select ?"],
    ["select a\n  from t -- of Smith's\n where b = 'x'", "select a from t where b = '…'"],
    ["select 'it''s', 'b'", "select '…', '…'"],
    [String.raw`select E'a\'b''c\\', e'\\' from t`, "select '…', '…' from t"],
    [String.raw`select 'a\', 'b'`, "select '…', '…'"],
    ["select b'101', x'1F', n'x', U&'d' uescape '!'", "select b'…', x'…', n'…', U&'…' uescape '…'"],
    ["select $$it's $x$$, $a$ $b$ $$ $a$ as c", "select $…$, $…$ as c"],
    ["select $1, $2::text, a$b$c, d", "select $1, $2::text, a$b$c, d"],
    ["select 1.5e10, .5, -3, 0x1F, 1_000, t1, delta_1_a", "select ?, .?, -?, ?, ?, t1, delta_1_a"],
    [`select "it's 1", "a""b'c", 'd'`, `select "it's 1", "a""b'c", '…'`],
    ["select /* 'a' */ 'b' /* 'c", "select '…'"],
    ["select 'never closed, secret", "select '…'"],
    ["select $a$ never closed, secret", "select $…$"],
    ["select E'never closed \\", "select '…'"],
    ["copy t (a, b) from stdin", "copy t (a, b) from stdin"],
  ])("%s", (statement, shown) => {
    expect(withoutValues(statement)).toBe(shown);
  });

  it("is cut where it is long, and no value is cut open", () => {
    const long = `select ${"a, ".repeat(9000)}'secret'`;
    expect(withoutValues(long)).toMatch(/^select a, .*…$/);
    const value = `select '${"secret".repeat(9000)}', 'b'`;
    expect(withoutValues(value)).toBe("select '…'…");
  });

  it("has no literal of ours, whatever is in it", () => {
    const { pick, int } = seededRandom("trace");
    const pieces = [
      "'",
      "''",
      "\\",
      "\\'",
      "$$",
      "$a$",
      '"',
      "--",
      "/*",
      "*/",
      "\n",
      "E'",
      " ",
      "é",
      ";",
      "%",
    ];
    for (let round = 0; round < 3000; round += 1) {
      const some = (): string => Array.from({ length: int(0, 6) }, () => pick(pieces)).join("");
      const value = (): string => literal(`${some()}SECRET${some()}`);
      const statement = `select ${value()}, ${ident(some())}, ${value()} as end_of_it`;
      const shown = withoutValues(statement);
      expect(shown, statement).not.toContain("SECRET");
      expect(shown, statement).toMatch(/'…' as end_of_it$/);
    }
  });

  it("is one of ours still", () => {
    expect(withoutValues(load("catalog/session"))).toContain(
      "select pg_catalog.set_config(s.name, w.value, false)",
    );
  });
});
