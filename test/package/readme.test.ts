import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { exitCodes, verbNames, verbs } from "../../src/cli/verbs.ts";
import { reference } from "../../src/cli/help.ts";
import { errorRules } from "../../src/errors.ts";
import { blocksOf, documents, isShell, part, read, root, type Block } from "../support/documents.ts";
import { execute, packageFolder } from "../support/example-shop.ts";
import { replicate } from "../support/replicate.ts";
import { scenarios } from "./scenarios.ts";

// What the documents tell people to type works, and what they say about options is what the program says itself.
// REPLICATE_UPDATE_DOCS=1 writes the parts that are made from the program's own tables.

const isUpdate = process.env["REPLICATE_UPDATE_DOCS"] === "1";

/** Fenced blocks that no scenario runs, by document and first line, and why not. */
const notRun: Readonly<Record<string, string>> = {
  "README.md: npm install --global pg-replicate": "package.test.ts installs what is packed",
  "README.md: export REPLICATE_SOURCE=postgresql://app@old.example.org/shop":
    "names servers that are not there",
  "docs/reference.md: replicate follow --standby   # on another machine: goes on when the first one cannot":
    "never ends by itself; test/faults/hot-standby.test.ts",
  "docs/reference.md: replicate run --source postgresql://… --target postgresql://…   # moves a database and keeps it in step":
    "leaves addresses out, and never ends by itself",
  "docs/reference.md: replicate serve --allow-actions   # a whole migration, in the browser":
    "never ends by itself; test/postgres/console/clicks.test.ts",
  "docs/reference.md: replicate status --watch   # keep an eye on it": "never ends by itself",
  "docs/reference.md: replicate cutover --timeout 30s --on-open './switch-application.sh'   # the real thing":
    "asks first; docs/cutover.md runs it with --yes",
  "docs/reference.md: replicate rollback --timeout 30s   # go back with what was written meanwhile":
    "asks first; docs/cutover.md runs it with --yes",
  "docs/reference.md: replicate conflicts resolve 42 44 --with source   # the target gets the source's rows":
    "names conflicts; test/postgres/conflict/resolve.test.ts",
};

const named = ({ document, text }: Block): string => `${document}: ${text.split("\n")[0]}`;

/** The examples of the reference are made by the program, without marks. */
const scenarioOf = ({ document, mark }: Block): string =>
  document === "docs/reference.md" && mark === "" ? `${document} examples` : `${document} ${mark}`;

const all = documents.flatMap(blocksOf);
const packages = packageFolder();

beforeAll(async () => {
  // Builds where that is due.
  expect((await replicate(["--version"])).code).toBe(0);
});
afterAll(packages.remove);

describe("fenced blocks", () => {
  it("are run, or there is a reason why not", () => {
    const typed = all.filter((block) => isShell(block) || ["js", "ts", "yaml"].includes(block.language));
    const left = typed.filter((block) => !(named(block) in notRun) && !(scenarioOf(block) in scenarios));
    expect(left.map(named)).toEqual([]);
    expect(typed.length).toBeGreaterThan(50);
  });

  it("have no reason that nobody needs", () => {
    const names = all.map(named);
    expect(Object.keys(notRun).filter((name) => !names.includes(name))).toEqual([]);
  });

  it.each(Object.entries(scenarios))("%s", async (name, run) => {
    const blocks = all.filter((block) => scenarioOf(block) === name && !(named(block) in notRun));
    expect(blocks.length).toBeGreaterThan(0);
    await run(blocks, packages.path);
  });

  it("in TypeScript and JavaScript compile, as strictly as can be", async () => {
    const programs = all.filter(({ language }) => ["ts", "js"].includes(language));
    expect(programs.length).toBeGreaterThan(3);
    const files = programs.map(({ language, text }, index) => {
      const file = `program-${index}.m${language}`;
      writeFileSync(join(packages.path, file), text);
      return file;
    });
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      noImplicitReturns: true,
      noUnusedLocals: true,
      allowJs: true,
      checkJs: true,
      noEmit: true,
      module: "nodenext",
      target: "es2023",
      lib: ["es2023", "esnext.disposable"],
      types: ["node"],
      typeRoots: [join(root, "node_modules", "@types")],
    };
    writeFileSync(join(packages.path, "tsconfig.json"), JSON.stringify({ compilerOptions, files }));
    const compiler = join(root, "node_modules", ".bin", "tsc");
    const { stdout } = await execute(compiler, ["-p", "."], { cwd: packages.path }).catch(
      (error: unknown) => error as { stdout: string },
    );
    expect(stdout).toBe("");
  });
});

function expectPart(document: string, name: string, lines: readonly string[]): void {
  const wanted = `\n${lines.join("\n")}\n\n`;
  if (isUpdate) {
    const [begin, end] = [`<!-- ${name} -->\n`, `<!-- /${name} -->`];
    const text = read(document).replace(
      `${begin}${part(document, name)}${end}`,
      () => `${begin}${wanted}${end}`,
    );
    writeFileSync(join(root, document), text);
  }
  expect(part(document, name)).toBe(wanted);
}

describe("README.md", () => {
  it("lists the commands", () => {
    expectPart("README.md", "commands", [
      "| command | what it does |",
      "|---|---|",
      ...verbNames.map((name) => `| \`${name}\` | ${verbs[name].summary} |`),
    ]);
  });

  it("stays short", () => {
    expect(read("README.md").split("\n").length).toBeLessThan(250);
  });
});

describe("docs/reference.md", () => {
  it("is what the program says about itself", () => {
    expectPart("docs/reference.md", "options", [reference()]);
    for (const [code, says] of exitCodes)
      expect(read("docs/reference.md")).toContain(`| ${code} | ${says} |`);
  });

  it("is what the program says about errors", () => {
    expectPart("docs/reference.md", "errors", [
      "| code | meaning | exit code | again | what to do |",
      "|---|---|---|---|---|",
      ...Object.entries(errorRules).map(
        ([code, { exitCode, retry, hint }]) =>
          `| \`${code}\` | ${meaningOf(code)} | ${exitCode} | ${retry} | ${hint.replaceAll("|", String.raw`\|`)} |`,
      ),
    ]);
  });
});

/** The comment above a code, without the sentence's full stop. */
function meaningOf(code: string): string {
  const comment = new RegExp(String.raw`/\*\* ([^\n]*) \*/\n  ${code}: rule\(`).exec(read("src/errors.ts"));
  if (comment === null) throw new Error(`src/errors.ts: what does ${code} mean?`);
  return (comment[1] ?? "").replace(/\.$/, "");
}
