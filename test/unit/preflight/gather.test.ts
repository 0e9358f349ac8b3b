import { expect, test } from "vitest";
import type { Finding, RawFinding } from "../../../src/preflight/finding.ts";
import { gather } from "../../../src/preflight/gather.ts";

const keyless = (subject: string): RawFinding => ({
  severity: "blocking",
  subject,
  isOfTable: true,
  message: "has no key",
  side: "source",
  role: "app",
  remedy: [
    "-- on the source, as app",
    `alter table ${subject} add primary key (…);`,
    `-- or leave the table out: --exclude-tables '${subject}'`,
    "-- or --keyless reload",
  ].join("\n"),
});
const missing = (subject: string): RawFinding => ({
  severity: "blocking",
  subject,
  isOfTable: true,
  message: "is missing on the target",
  remedy: "replicate schema",
});
const other: Finding = { severity: "warning", subject: "connections", message: "are few" };

test("what is said of several tables is one finding, with every statement and every name", () => {
  const [first, second, third, ...rest] = gather([
    keyless("a"),
    missing("a"),
    other,
    missing("b"),
    keyless("b"),
    missing("c"),
    keyless("c"),
  ]);
  expect(rest).toEqual([]);
  expect(first).toMatchObject({
    subject: "3 tables (a, b, c)",
    subjects: ["a", "b", "c"],
    message: "each has no key",
    side: "source",
    role: "app",
  });
  expect(first?.remedy?.split("\n")).toEqual([
    "-- on the source, as app",
    "alter table a add primary key (…);",
    "alter table b add primary key (…);",
    "alter table c add primary key (…);",
    "-- or leave them out: --exclude-tables 'a' 'b' 'c'",
    "-- or --keyless reload",
  ]);
  expect(second).toMatchObject({
    subject: "3 tables (a, b, c)",
    message: "each is missing on the target",
    remedy: "replicate schema",
  });
  expect(third).toEqual(other);
});

test("what differs in anything but the table stays by itself, and so do two", () => {
  const findings = [
    keyless("a"),
    { ...keyless("b"), role: "somebody" },
    { ...keyless("c"), severity: "warning" as const },
    { ...keyless("d"), message: "has none either" },
    other,
    { ...other, subject: "versions" },
    missing("a"),
    missing("b"),
  ];
  expect(gather(findings)).toEqual(findings.map((finding) => ({ ...finding, isOfTable: undefined })));
});

test("how findings are gathered is not told", () => {
  const told = gather([keyless("a"), keyless("b"), keyless("c"), missing("a")]);
  expect(told.filter((finding) => "isOfTable" in finding)).toEqual([]);
});

test("of many names the first are shown", () => {
  const names = Array.from({ length: 150 }, (_, index) => `t${index}`);
  const [only, ...rest] = gather(names.map(missing));
  expect(rest).toEqual([]);
  expect(only?.subject).toMatch(/^150 tables \(t0, t1, .*t9 and 140 more\)$/);
  expect(only?.subjects).toEqual(names);
});
