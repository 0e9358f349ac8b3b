import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { loadOptions } from "../../../src/config/file.ts";
import { resolveConfig, type ResolvedConfig, type SyncOptions } from "../../../src/config/options.ts";
import { loadResolvers, policyLabel, policyOf, type Conflict } from "../../../src/config/conflict-policy.ts";
import { ReplicateError } from "../../../src/errors.ts";
import { openSync } from "../../../src/index.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "replicate-policy-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

const sides = { source: "host=s dbname=shop", target: "host=t dbname=shop" };

function write(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

function resolved(settings: object): ResolvedConfig {
  return resolveConfig({ ...sides, ...settings } as SyncOptions, {});
}

function problemsOf(error: unknown): Record<string, string> {
  if (!(error instanceof ReplicateError) || error.code !== "CONFIG_INVALID") throw error;
  return Object.fromEntries(error.problems.map(({ subject, message }) => [subject, message]));
}

function problems(settings: object): Record<string, string> {
  try {
    resolved(settings);
  } catch (error) {
    return problemsOf(error);
  }
  return {};
}

const load = async (settings: object): Promise<Record<string, string>> =>
  await loadResolvers(resolved(settings)).then(() => ({}), problemsOf);

describe("settings of conflicts", () => {
  it("have defaults", () => {
    expect(resolved({})).toMatchObject({
      direction: "one-way",
      conflict: { kind: "source-wins" },
      nodes: {},
      conflictLog: { keepSeconds: 30 * 86_400 },
    });
  });

  it.each([
    ["source-wins", { kind: "source-wins" }, "source-wins"],
    ["target-wins", { kind: "target-wins" }, "target-wins"],
    ["latest", { kind: "latest" }, "latest"],
    ["skip", { kind: "skip" }, "skip"],
    ["error", { kind: "error" }, "error"],
    [{ latest: "Updated At" }, { kind: "latest-column", column: "Updated At" }, "latest: Updated At"],
    [{ order: ["a", "c"] }, { kind: "order", nodes: ["a", "c"] }, "order: a, c"],
  ])("take the policy %j, for the sync and for a table", (conflict, policy, label) => {
    const config = resolved({ conflict, overrides: { users: { conflict } } });
    expect([config.conflict, config.overrides["users"]?.conflict]).toEqual([policy, policy]);
    expect(policyLabel(config.conflict)).toBe(label);
    expect([Object.isFrozen(config.conflict), Object.isFrozen(config.conflictLog)]).toEqual([true, true]);
  });

  it("take a function as policy", async () => {
    const merge = (): "skip" => "skip";
    const { conflict } = resolved({ conflict: { custom: merge } });
    expect(policyLabel(conflict)).toBe("custom: merge");
    expect(conflict.kind === "custom" && (await conflict.load())).toBe(merge);
  });

  it.each<[unknown, Record<string, string>]>([
    [
      "lattest",
      { conflict: expect.stringMatching(/one of source-wins, .*; did you mean "latest"\?$/) as string },
    ],
    ["order", { conflict: expect.stringMatching(/^needs more: .*order: \[A, B\]/) as string }],
    [3, { conflict: "has to be a set of names and values" }],
    [["skip"], { conflict: "has to be a set of names and values" }],
    [{}, { conflict: expect.stringMatching(/^has to be one of/) as string }],
    [{ latest: "a", order: ["a"] }, { conflict: expect.stringMatching(/^has to be one of/) as string }],
    [{ latests: "a" }, { "conflict.latests": 'is no setting; did you mean "latest"?' }],
    [{ latest: "" }, { "conflict.latest": "has to be the name of a column" }],
    [{ latest: 3 }, { "conflict.latest": "has to be a text" }],
    [{ order: [] }, { "conflict.order": "has to be a list of nodes such as [A, C, B]" }],
    [{ order: "a, b" }, { "conflict.order": "has to be a list of nodes such as [A, C, B]" }],
    [{ order: ["a", "b", "a"] }, { "conflict.order": "names a twice" }],
    [{ custom: 3 }, { "conflict.custom": "has to be the path of a module, or a function" }],
    [{ custom: "/nowhere/x.js" }, { "conflict.custom": "there is no such file: /nowhere/x.js" }],
    [{ custom: tmpdir() }, { "conflict.custom": `there is no such file: ${tmpdir()}` }],
  ])("refuse the policy %j", (conflict, expected) => {
    expect(problems({ conflict })).toEqual(expected);
    const inTable = Object.fromEntries(
      Object.entries(expected).map(([subject, message]) => [`overrides.t.${subject}`, message]),
    );
    expect(problems({ overrides: { t: { conflict } } })).toEqual(inTable);
  });

  it("want an order that names both nodes, where they have names", () => {
    const nodes = { source: "office", target: "cloud" };
    expect(problems({ nodes, conflict: { order: ["cloud", "x", "office"] } })).toEqual({});
    expect(problems({ nodes, conflict: { order: ["cluod"] } })).toEqual({
      "conflict.order": expect.stringContaining("does not name"),
    });
    expect(
      problems({ nodes: { source: "office" }, overrides: { t: { conflict: { order: ["ofice"] } } } }),
    ).toEqual({
      "overrides.t.conflict.order": 'does not name office, which is one of nodes; did you mean "ofice"?',
    });
    expect(problems({ nodes: { source: "a", target: "a" } })).toEqual({
      "nodes.target": "has to differ from nodes.source",
    });
  });

  it("belong to the table whose pattern is the narrowest, else to the sync", () => {
    const config = resolved({
      conflict: "error",
      overrides: {
        "app.*": { keyless: "reload" },
        "app.u*": { conflict: "skip" },
        "app.users": { conflict: "latest" },
      },
    });
    expect(["users", "uses", "x"].map((name) => policyOf(config, "app", name).kind)).toEqual([
      "latest",
      "skip",
      "error",
    ]);
  });
});

describe("a module of a custom policy", () => {
  it("is meant from the folder of the configuration file", async () => {
    write(
      "resolve.mjs",
      `export default (conflict) => (conflict.kind === "insert_exists" ? "skip" : "target");`,
    );
    write("named.mjs", `export const resolve = () => "source";`);
    const file = write(
      "replicate.yaml",
      `{ source: host=s, target: host=t, conflict: { custom: ./resolve.mjs }, overrides: { t: { conflict: { custom: named.mjs } } } }`,
    );
    const config = resolveConfig(loadOptions({ file }, {}), {});
    await loadResolvers(config);
    expect(policyLabel(config.conflict)).toBe("custom: resolve.mjs");
    const resolver = config.conflict.kind === "custom" ? await config.conflict.load() : undefined;
    expect(resolver?.({ kind: "insert_exists" } as Conflict)).toBe("skip");
    const named = config.overrides["t"]?.conflict;
    expect(named?.kind === "custom" && (await named.load())({} as Conflict)).toBe("source");
  });

  it("that is missing is reported with everything else", () => {
    const file = write(
      "replicate.yaml",
      "{ source: host=s, target: host=t, conflict: { custom: ./no.js }, name: a b }",
    );
    let found = {};
    try {
      loadOptions({ file }, {});
    } catch (error) {
      found = problemsOf(error);
    }
    expect(found).toEqual({
      name: expect.stringContaining("letters"),
      "conflict.custom": `there is no such file: ${join(folder, "no.js")}`,
    });
  });

  it("has to be a module that exports a function; all that do not are named", async () => {
    const none = write("none.mjs", "export default 3; export const reslove = () => 'skip';");
    const broken = write("broken.mjs", "export default (");
    const thrower = write("thrower.mjs", "throw new Error('no licence');");
    const settings = {
      conflict: { custom: none },
      overrides: { a: { conflict: { custom: broken } }, b: { conflict: { custom: thrower } } },
    };
    const expected = {
      "conflict.custom": `${none} exports no function, as default or named resolve`,
      "overrides.a.conflict.custom": expect.stringContaining(`${broken} cannot be loaded: `),
      "overrides.b.conflict.custom": `${thrower} cannot be loaded: no licence`,
    };
    expect(await load(settings)).toEqual(expected);
    // Before anything is connected, too.
    const opened = await openSync({ ...sides, ...settings }).then(() => ({}), problemsOf);
    expect(opened).toEqual(expected);
  });
});
