import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

// sql/README.md says what each file is for; here it is held to that.

const root = fileURLToPath(new URL("../..", import.meta.url));
const read = (path: string): string => readFileSync(`${root}${path}`, "utf8");

interface Row {
  file: string;
  sides: readonly string[];
  callers: readonly string[];
}

const rows: readonly Row[] = read("sql/README.md")
  .split("\n")
  .filter((line) => line.startsWith("| `"))
  .map((line) => {
    const [file = "", , sides = "", callers = ""] = line
      .split("|")
      .slice(1)
      .map((cell) => cell.trim());
    return {
      file: file.replaceAll("`", ""),
      sides: sides.split(", "),
      callers: callers.split(", ").map((caller) => caller.replaceAll("`", "")),
    };
  });

const files = readdirSync(`${root}sql`, { recursive: true, encoding: "utf8" })
  .filter((path) => path.endsWith(".sql"))
  .toSorted();

/** What is under src, without its comments, which may name files too. */
const sources = new Map(
  readdirSync(`${root}src`, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts"))
    .toSorted()
    .map((path) => [`src/${path}`, read(`src/${path}`).replaceAll(/\/\*.*?\*\/|(?<=^|\s)\/\/[^\n]*/gs, "")]),
);

/** Who reads a file of sql, by its name without the ending. Migrations are read by their number, all in a row. */
function readersOf(name: string): string[] {
  if (/^state\/\d/.test(name)) return ["src/state/migrate.ts"];
  return [...sources].filter(([, text]) => text.includes(`"${name}"`)).map(([path]) => path);
}

describe("sql/README.md", () => {
  it("lists every file, once, and no other", () => {
    expect(rows.map(({ file }) => file).toSorted()).toEqual(files);
  });

  it.each(rows)("$file runs where its head says", ({ file, sides }) => {
    const place = /-- Runs on: (.*)/.exec(read(`sql/${file}`))?.[1] ?? "";
    expect(["source", "target"].filter((side) => place.includes(side))).toEqual(sides);
  });

  it.each(rows)("$file is read by the callers named, and by no others", ({ file, callers }) => {
    expect(callers.toSorted()).toEqual(readersOf(file.replace(/\.sql$/, "")));
  });

  it("names no file in code that is not there", () => {
    const folders = [...new Set(files.map((file) => file.split("/")[0]))].join("|");
    const named = [...sources.values()].flatMap((text) =>
      [...text.matchAll(new RegExp(`"((?:${folders})/[\\w-]+)"`, "g"))].map(([, name]) => `${name}.sql`),
    );
    expect(named.length).toBeGreaterThan(50);
    expect(named.filter((file) => !files.includes(file))).toEqual([]);
  });
});
