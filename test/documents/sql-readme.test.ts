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

/** The functions of src/postgres/sql.ts that read a file. */
const loaders = ["load", "fill", "withArgument"];

/** What a source gives to the loaders, as it is written. */
function loadedBy(text: string): string[] {
  const calls = new RegExp(`(?<![\\w.])(?:${loaders.join("|")})\\(\\s*([^,)]+)`, "g");
  return [...text.matchAll(calls)].map(([, argument = ""]) => argument.trim());
}

/**
 * Who reads a file of sql, by its name without the ending: who gives the name to a loader, or to a function of the same
 * module that has a loader read what it is given.
 */
function readersOf(name: string): string[] {
  const isMigration = /^state\/\d/.test(name);
  const found = [...sources].filter(([path, text]) => {
    if (path === "src/postgres/sql.ts") return false;
    const given = loadedBy(text);
    if (isMigration)
      return path === "src/state/migrate.ts" && given.some((each) => each.startsWith("`state/${"));
    return given.includes(`"${name}"`) || (given.includes("path") && text.includes(`"${name}"`));
  });
  return found.map(([path]) => path);
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

  it("is not passed by: files are read by the loaders alone, by names that are written out", () => {
    for (const [path, text] of sources) {
      // migrate.ts looks which migrations there are.
      if (["src/postgres/sql.ts", "src/state/migrate.ts"].includes(path)) continue;
      expect(/["'`/]sql\//.test(text.replaceAll(/from "[^"]+"/g, "")), path).toBe(false);
      const odd = loadedBy(text).filter((argument) => !/^"[\w-]+\/[\w-]+"$/.test(argument));
      expect(odd.filter((argument) => argument !== "path")).toEqual([]);
    }
  });

  it("names callers that are there, each with a file that it reads", () => {
    const named = new Set(rows.flatMap(({ callers }) => callers));
    const loading = [...sources].filter(
      ([path, text]) => path !== "src/postgres/sql.ts" && loadedBy(text).length > 0,
    );
    expect([...named].toSorted()).toEqual(loading.map(([path]) => path).toSorted());
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
