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

describe("sql/README.md", () => {
  it("lists every file, once, and no other", () => {
    expect(rows.map(({ file }) => file).toSorted()).toEqual(files);
  });

  it.each(rows)("$file runs where its head says", ({ file, sides }) => {
    const place = /-- Runs on: (.*)/.exec(read(`sql/${file}`))?.[1] ?? "";
    expect(["source", "target"].filter((side) => place.includes(side))).toEqual(sides);
  });

  it.each(rows)("$file is read by the callers named", ({ file, callers }) => {
    const name = file.replace(/\.sql$/, "");
    // Migrations are read by their number, all in a row.
    const word = name.startsWith("state/") ? "sql/state/" : `"${name}"`;
    expect(callers.filter((caller) => !read(caller).includes(word))).toEqual([]);
  });
});
