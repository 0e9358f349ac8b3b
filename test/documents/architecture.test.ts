import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

import { failpoints } from "../../src/postgres/failpoint.ts";
import { documents as users } from "../support/documents.ts";

// What ARCHITECTURE.md says of the code is so, and what documents name and link to is there. Where a test fails, the document
// is behind.

const root = fileURLToPath(new URL("../..", import.meta.url));
const read = (path: string): string => readFileSync(join(root, path), "utf8");

const architecture = read("ARCHITECTURE.md");
const decisions = readdirSync(join(root, "docs/decisions")).map((name) => `docs/decisions/${name}`);
const documents = [
  "ARCHITECTURE.md",
  "CONTRIBUTING.md",
  "SECURITY.md",
  ...users,
  "sql/README.md",
  "benchmarks/README.md",
  ...decisions,
];

/** The cells of the table between two marks, without its head. */
function tableOf(mark: string): string[][] {
  const [, text] = new RegExp(`<!-- ${mark} -->\n(.*?)<!-- /${mark} -->`, "s").exec(architecture) ?? [];
  if (text === undefined) throw new Error(`ARCHITECTURE.md has no part ${mark}`);
  const rows = text.split("\n").filter((line) => line.startsWith("|"));
  return rows.slice(2).map((line) =>
    line
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

/** What a cell has in backquotes. */
const quoted = (cell = ""): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, text = ""]) => text);

const firstCells = (mark: string): string[] => tableOf(mark).flatMap(([cell]) => quoted(cell));

function filesUnder(folder: string, ending: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(ending))
    .map((path) => posix.join(folder, path));
}

const sourceFiles = [...filesUnder("src", ".ts"), ...filesUnder("src", ".tsx")];
const folders = readdirSync(join(root, "src"), { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .map(({ name }) => name)
  .toSorted();

describe.each(documents)("%s", (document) => {
  const text = read(document);

  it("names files and folders that are there", () => {
    const paths = [...text.matchAll(/`((?:src|sql|test|docs|benchmarks|\.ci)\/[^`\s*…]*)`/g)].map(
      ([, path = ""]) => path,
    );
    expect(paths.filter((path) => !existsSync(join(root, path)))).toEqual([]);
  });

  it("has links that lead somewhere", () => {
    const links = [...text.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link = ""]) => link);
    const missing = links.filter((link) => {
      if (/^https?:/.test(link)) return false;
      const [path = "", anchor] = link.split("#");
      const file = path === "" ? document : posix.join(posix.dirname(document), path);
      if (!existsSync(join(root, file))) return true;
      return anchor !== undefined && !anchorsOf(read(file)).includes(anchor);
    });
    expect(missing).toEqual([]);
  });
});

/** As the headings of a file are linked to. */
function anchorsOf(text: string): string[] {
  return [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = ""]) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\s-]/g, "")
      .trim()
      .replaceAll(" ", "-"),
  );
}

describe("ARCHITECTURE.md", () => {
  it("lists the tables of schema replicate", () => {
    const created = filesUnder("sql/state", ".sql").flatMap((path) =>
      [...read(path).matchAll(/^create table replicate\.(\w+)/gm)].map(([, name = ""]) => name),
    );
    expect(firstCells("state-tables").toSorted()).toEqual(created.toSorted());
  });

  it.each(tableOf("state-tables"))("names all who write to table %s", (table, _side, _holds, writers) => {
    const [name = ""] = quoted(table);
    const writes = new RegExp(`(insert into|update|delete from) replicate\\.${name}\\b`);
    const files = [...sourceFiles, ...filesUnder("sql", ".sql")].filter((path) => {
      const whole = read(path);
      // What a migration does once is nobody's writing; what a function does that it creates is.
      const functions = [...whole.matchAll(/\$function\$.*?\$function\$/gs)].join("\n");
      const text = /^sql\/state\/\d/.test(path) ? functions : whole;
      if (writes.test(text)) return true;
      // The same statement for a list of tables.
      const lists = [...text.matchAll(/for \(const table of \[(.*?)\]\)/gs)].map(([, list = ""]) => list);
      return (
        text.includes("delete from replicate.${table}") && lists.some((list) => list.includes(`"${name}"`))
      );
    });
    expect(quoted(writers).toSorted()).toEqual(files.toSorted());
  });

  it("lists the failpoints", () => {
    const listed = tableOf("failpoints").flatMap(([, steps]) => quoted(steps));
    expect(listed.toSorted()).toEqual([...failpoints].toSorted());
  });

  it("has failpoints that the code reaches, and no others", () => {
    const texts = sourceFiles.filter((path) => path !== "src/postgres/failpoint.ts").map(read);
    const reached = texts.flatMap((text) =>
      [
        ...text.matchAll(
          /failpoint\("([^"]+)"\)|\["([\w.-]+)", |^ +"((?:deferred|copy\.prepare)\.[\w-]+)",$/gm,
        ),
      ].map(([, called, step, wrapped]) => called ?? step ?? wrapped ?? ""),
    );
    const stages = new Set(failpoints.map((name) => name.split(".")[0]));
    const named = reached.filter((name) => name.includes(".") && stages.has(name.split(".")[0]));
    expect([...new Set(named)].toSorted()).toEqual([...failpoints].toSorted());
  });

  it("lists the folders", () => {
    expect(firstCells("folders").toSorted()).toEqual(folders);
  });

  it.each(tableOf("folders"))(
    "says what folder %s imports, and lint allows no more",
    (folder, _does, may) => {
      const [name = ""] = quoted(folder);
      const imported = new Set<string>();
      for (const path of sourceFiles.filter((each) => each.startsWith(`src/${name}/`))) {
        for (const [, from = ""] of read(path).matchAll(/from "(\.[^"]+)"/g)) {
          const [, first = "", ...rest] = posix.join(posix.dirname(path), from).split("/");
          const isOpenToAll = rest.length === 0 && ["errors.ts", "events.ts"].includes(first);
          const file = [first, ...rest].join("/");
          if (!isOpenToAll && first !== name) imported.add(quoted(may).includes(file) ? file : first);
        }
      }
      expect(new Set(quoted(may))).toEqual(imported);
      expect(allowedBy(name).filter((each) => each !== name)).toEqual(quoted(may));
    },
  );
});

interface Lint {
  readonly overrides: readonly {
    readonly files: readonly string[];
    readonly rules: Readonly<Record<string, unknown>>;
  }[];
}

/** Folders and files that lint allows a folder, besides the two that all may import. */
function allowedBy(folder: string): string[] {
  const { overrides } = JSON.parse(read(".oxlintrc.json")) as Lint;
  const rule = overrides.find(({ files }) => files.includes(`src/${folder}/*.ts`))?.rules[
    "eslint/no-restricted-imports"
  ] as [string, { patterns: [{ group: string[] }] }] | undefined;
  const group = rule?.[1].patterns[0].group ?? [];
  return group.flatMap((each) => {
    const [, name] = /^!\.\.\/(.+?)(?:\/\*\*)?$/.exec(each) ?? [];
    return name === undefined || name === "errors.ts" || name === "events.ts" ? [] : [name];
  });
}

describe("docs/decisions", () => {
  it("has an index of all", () => {
    const index = read("docs/decisions/README.md");
    const linked = [...index.matchAll(/\]\(([\w-]+\.md)\)/g)].map(([, name]) => `docs/decisions/${name}`);
    expect(linked.toSorted()).toEqual(
      decisions.filter((path) => path !== "docs/decisions/README.md").toSorted(),
    );
  });

  it.each(decisions.filter((path) => path !== "docs/decisions/README.md"))(
    "%s says why and what of it",
    (path) => {
      const headings = [...read(path).matchAll(/^## (.*)$/gm)].map(([, heading]) => heading);
      expect(headings).toEqual(["Context", "Decision", "Facts", "Consequences"]);
    },
  );
});

describe("the files of src", () => {
  // Type imports count too, which lint's import/no-cycle passes over: files in a circle cannot be read one after another.
  it("import each other in no circle", () => {
    const imports = new Map(
      sourceFiles.map((path) => [
        path,
        [...read(path).matchAll(/\b(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)].map(([, from = ""]) =>
          posix.join(posix.dirname(path), from),
        ),
      ]),
    );
    expect(
      [...imports.values()].flat().filter((path) => !imports.has(path) && !path.endsWith(".css")),
    ).toEqual([]);
    expect(circlesIn(imports)).toEqual([]);
  });

  it("would be seen in a circle", () => {
    const circle = new Map([
      ["a", ["b", "d"]],
      ["b", ["c"]],
      ["c", ["d", "b"]],
      ["d", []],
    ]);
    expect(circlesIn(circle)).toEqual([["b", "c", "b"]]);
  });
});

/** Circles as the ways around them; one for each import that leads back to a file from which it was come. */
function circlesIn(imports: ReadonlyMap<string, readonly string[]>): string[][] {
  const circles: string[][] = [];
  const done = new Set<string>();
  const walk = (path: string, way: readonly string[]): void => {
    if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path]);
    if (done.has(path) || way.includes(path)) return;
    for (const each of imports.get(path) ?? []) walk(each, [...way, path]);
    done.add(path);
  };
  for (const path of imports.keys()) walk(path, []);
  return circles;
}
