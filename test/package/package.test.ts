import { execFile } from "node:child_process";
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { publint } from "publint";
import { afterAll, beforeAll, describe, expect, it } from "vitest";

import { freePair } from "../support/database.ts";

// What `npm pack` makes, installed into an empty folder, as a user gets it.

const execute = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));

let folder: string;
let installed: string;
const files: string[] = [];

const inFolder = (name: string): string => join(folder, name);

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), "replicate-package-"));
  // Packing builds, and other tests are using what is built in the project's own folder.
  const project = inFolder("project");
  mkdirSync(project);
  for (const name of [
    "package.json",
    "tsconfig.json",
    "tsconfig.build.json",
    "LICENSE",
    "README.md",
    "bin",
    "docs",
    "sql",
    "src",
  ]) {
    if (existsSync(join(root, name))) cpSync(join(root, name), join(project, name), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(project, "node_modules"));
  const packed = await execute("npm", ["pack", "--json", "--pack-destination", folder], { cwd: project });
  // A build script may print before the report.
  const [report] = JSON.parse(packed.stdout.slice(packed.stdout.indexOf("[\n"))) as [
    { filename: string; files: { path: string }[] },
  ];
  files.push(...report.files.map(({ path }) => path));
  writeFileSync(inFolder("package.json"), '{ "private": true, "type": "module" }');
  const quiet = ["--prefer-offline", "--ignore-scripts", "--no-audit", "--no-fund"];
  await execute("npm", ["install", ...quiet, join(folder, report.filename)], { cwd: folder });
  installed = join(folder, "node_modules", "pg-replicate");
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function command(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const env = { PATH: process.env["PATH"], HOME: folder };
  return await execute(join(folder, "node_modules", ".bin", "replicate"), args, { cwd: folder, env }).then(
    (said) => ({ code: 0, ...said }),
    (error: unknown) => error as { code: number; stdout: string; stderr: string },
  );
}

async function script(text: string, env: NodeJS.ProcessEnv = {}): Promise<string> {
  const path = inFolder(`script-${Math.random().toString(36).slice(2)}.mjs`);
  writeFileSync(path, text);
  const { stdout } = await execute(process.execPath, [path], {
    cwd: folder,
    env: { PATH: process.env["PATH"], HOME: folder, ...env },
  });
  return stdout.trim();
}

it("holds what is needed to run and nothing else", () => {
  const expected =
    /^(bin\/replicate\.js|dist\/.+\.(js|d\.ts)|dist\/console\/page\/main\.css|sql\/.+\.sql|sql\/README\.md|docs\/[\w-]+\.md|package\.json|LICENSE|README\.md)$/;
  expect(files.filter((path) => !expected.test(path))).toEqual([]);
  const sql = readdirSync(join(root, "sql"), { recursive: true, encoding: "utf8" }).filter((path) =>
    path.endsWith(".sql"),
  );
  for (const path of sql) expect(files).toContain(`sql/${path}`);
});

it("has documents whose links lead to what is packed", () => {
  // The README alone points those who change the program to what only the repository has.
  const isRepositoryOnly = (path: string): boolean =>
    /^(ARCHITECTURE|CONTRIBUTING|SECURITY)\.md$/.test(path) && existsSync(join(root, path));
  const packed = files.filter((each) => each.endsWith(".md"));
  expect(packed.length).toBeGreaterThan(10);
  for (const path of packed) {
    const text = readFileSync(join(installed, path), "utf8");
    for (const [, link = ""] of text.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)) {
      const linked = posix.join(posix.dirname(path), link);
      const isThere = files.includes(linked) || (path === "README.md" && isRepositoryOnly(linked));
      expect(isThere, `${path}: ${link}`).toBe(true);
    }
  }
});

it("is found correct by publint", async () => {
  const { messages } = await publint({ pkgDir: installed, strict: true, pack: false });
  expect(messages).toEqual([]);
});

describe("command", () => {
  it("runs", async () => {
    expect(await command("--version")).toMatchObject({ code: 0, stdout: `${await version()}\n` });
    expect(await command("--help")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("Usage: replicate"),
    });
    expect(await command("copy", "--help")).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("--overwrite"),
    });
    expect(
      await command("status", "--source", "host=127.0.0.1 port=1", "--target", "host=127.0.0.1 port=1"),
    ).toMatchObject({
      code: 3,
      stderr: expect.stringContaining("SERVER_UNREACHABLE"),
    });
  });

  it("finds its SQL files", async () => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target]) await side.sql("create table a (id int primary key)");
    await pair.source.sql("insert into a values (1)");
    const sides = ["--source", pair.source.url, "--target", pair.target.url];
    expect(await command("run", "--until-caught-up", ...sides)).toMatchObject({ code: 0 });
    expect(await command("verify", ...sides)).toMatchObject({
      code: 0,
      stdout: expect.stringContaining("equal; 1 table, 1 row"),
    });
    expect(await command("drop", "--yes", ...sides)).toMatchObject({ code: 0 });
  });
});

describe("library", () => {
  it("is imported, and required, by its name only", async () => {
    expect(
      await script(
        `import * as all from "pg-replicate"; console.log(typeof all.openSync, typeof all.ReplicateError)`,
      ),
    ).toBe("function function");
    const require = `import { createRequire } from "node:module"; const require = createRequire(import.meta.url);`;
    expect(await script(`${require} console.log(typeof require("pg-replicate").openSync)`)).toBe("function");
    expect(await script(`${require} console.log(require("pg-replicate/package.json").name)`)).toBe(
      "pg-replicate",
    );
    expect(
      await script(`import("pg-replicate/dist/sync.js").catch((error) => console.log(error.code))`),
    ).toBe("ERR_PACKAGE_PATH_NOT_EXPORTED");
  });

  it("prints nothing and leaves nothing running", async () => {
    await using pair = await freePair();
    for (const side of [pair.source, pair.target]) await side.sql("create table a (id int primary key)");
    const text = `
      import { openSync } from "pg-replicate";
      const sync = await openSync({ source: process.env.SOURCE, target: process.env.TARGET });
      await sync.init();
      await sync.copy();
      for await (const batch of sync.follow({ untilCaughtUp: true }));
      const { equal } = await sync.verify();
      await sync.drop();
      await sync[Symbol.asyncDispose]();
      console.log(equal);
    `;
    // The process ends by itself, or the time-out of the test ends it.
    expect(await script(text, { SOURCE: pair.source.url, TARGET: pair.target.url })).toBe("true");
  });

  it("comes with its types", async () => {
    writeFileSync(
      inFolder("consumer.ts"),
      `
      import { openSync, ReplicateError, type Batch, type Status, type SyncEvent, type VerifyReport } from "pg-replicate";

      export async function move(source: string, target: string, signal: AbortSignal): Promise<boolean> {
        await using sync = await openSync({ name: "shop", source, target, tables: ["public.*"] });
        await sync.init();
        await sync.copy({ jobs: 4, signal, onEvent: (event: SyncEvent) => void (event.type === "table-copied" && event.rows) });
        for await (const batch of sync.follow({ signal })) {
          const { rows, lagSeconds }: Batch = batch;
          if (rows + lagSeconds < 0) throw new ReplicateError("INTERNAL", "impossible");
        }
        const status: Status = await sync.status();
        const report: VerifyReport = await sync.verify();
        return report.equal && status.lag.rows === 0;
      }
      export const fromVariables = openSync({ source: process.env["SOURCE"], target: process.env["TARGET"] });
      // @ts-expect-error -- source is needed
      void openSync({ target: "" });
      // @ts-expect-error -- no such code
      void new ReplicateError("NO_SUCH_CODE", "");
      `,
    );
    const compilerOptions = {
      strict: true,
      exactOptionalPropertyTypes: true,
      noEmit: true,
      module: "nodenext",
      target: "es2023",
      lib: ["es2023", "esnext.disposable"],
      // The driver's types are not among what is installed, and need not be.
      skipLibCheck: false,
      types: ["node"],
      typeRoots: [join(root, "node_modules", "@types")],
    };
    const settings = { compilerOptions, files: ["consumer.ts"] };
    writeFileSync(inFolder("tsconfig.json"), JSON.stringify(settings));
    const compiler = join(root, "node_modules", ".bin", "tsc");
    const { stdout } = await execute(compiler, ["-p", "."], { cwd: folder }).catch(
      (error: unknown) => error as { stdout: string },
    );
    expect(stdout).toBe("");
  });
});

async function version(): Promise<string> {
  const { default: manifest } = (await import(join(installed, "package.json"), {
    with: { type: "json" },
  })) as {
    default: { version: string };
  };
  return manifest.version;
}
