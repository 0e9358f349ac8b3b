import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { loadOptions, readConfigFile } from "../../../src/config/file.ts";
import { resolveConfig, type SyncOptions } from "../../../src/config/options.ts";
import { problemsError, ReplicateError } from "../../../src/errors.ts";
import { parseDuration, parseSize } from "../../../src/config/checks.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "replicate-config-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function write(text: string): string {
  const path = join(folder, "replicate.yaml");
  writeFileSync(path, text);
  return path;
}

function problemsOf(act: () => unknown): Record<string, string> {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(ReplicateError);
    expect((error as ReplicateError).code).toBe("CONFIG_INVALID");
    return Object.fromEntries(
      (error as ReplicateError).problems.map(({ subject, message }) => [subject, message]),
    );
  }
  throw new Error("nothing was wrong");
}

const sides = { source: "host=s dbname=shop", target: "host=t dbname=shop" };

describe("resolveConfig", () => {
  it("fills in the defaults", () => {
    const config = resolveConfig(sides, {});
    expect(config).toMatchObject({
      name: "default",
      source: { host: "s", database: "shop" },
      target: { host: "t" },
      tables: [],
      exclude: [],
      overrides: {},
      copy: { jobs: 4, indexJobs: 2, partBytes: 128 * 1024 ** 2, indexMemoryBytes: 1024 ** 3 },
    });
  });

  it("says in the message what is wrong, also of a variable that is not set", () => {
    const wrong = { source: undefined, target: "host=t", copy: { jobs: 0 } };
    expect(() => resolveConfig(wrong, {})).toThrow(
      /^2 settings are wrong: source: is missing: .*in a program, the option source; copy\.jobs: has to be a whole number from 1 to 64$/,
    );
    const error = problemsError("CONFIG_INVALID", "2 settings are wrong", [
      { subject: "a", message: "is b" },
    ]);
    expect([error.message, error.summary]).toEqual(["2 settings are wrong: a: is b", "2 settings are wrong"]);
  });

  it("is frozen", () => {
    const config = resolveConfig({ ...sides, tables: ["a"], overrides: { a: { target: "b" } } }, {});
    for (const part of [
      config,
      config.source,
      config.tables,
      config.copy,
      config.overrides,
      config.overrides["a"],
    ]) {
      expect(Object.isFrozen(part)).toBe(true);
    }
  });

  it("takes undefined for not given", () => {
    const given = { ...sides, name: undefined, tables: undefined, copy: { jobs: undefined } };
    expect(resolveConfig(given as unknown as SyncOptions, {})).toMatchObject({
      name: "default",
      copy: { jobs: 4 },
    });
  });

  it("gives each side a password of its own", () => {
    const env = { PGPASSWORD: "both", REPLICATE_TARGET_PASSWORD: "target's" };
    const config = resolveConfig({ source: "host=s", target: "host=t" }, env);
    expect([config.source.password, config.target.password]).toEqual(["both", "target's"]);
    expect(resolveConfig({ source: "host=s", target: "host=t password=x" }, env).target.password).toBe("x");
  });

  it("reports everything that is wrong at once", () => {
    const wrong = {
      name: "my sync",
      source: "host=h port=x sslmode=y",
      tables: ["public.*", "a.b.c"],
      exclude: "public.x",
      conflict: { lastest: "updated_at" },
      direction: "bth",
      conflictLog: { keep: "long" },
      nodes: { source: "a b", target: 3 },
      jobs: 3,
      deltaLimit: "some",
      copy: { jobs: 0, indexJobs: 1.5, partSize: "1kB", indexMemory: "lots", jbos: 1 },
      overrides: {
        "public.users": { target: "app.users", where: "true", columns: {}, capture: "rwo", skipNoop: "auto" },
        "public.people": { target: "App.Users", conflict: "skpi" },
        "public.x*": { target: "y" },
      },
    };
    expect(problemsOf(() => resolveConfig(wrong as unknown as SyncOptions, {}))).toEqual({
      name: "has to consist of 1 to 50 letters, digits, _ and -",
      source: "sslmode has to be one of disable, allow, prefer, require, verify-ca, verify-full",
      target:
        "is missing: give --target, the variable REPLICATE_TARGET, or a line in the file; in a program, the option target",
      tables: expect.stringContaining("a.b.c: it has more than one dot"),
      exclude: 'has to be a list of patterns such as ["public.*"]',
      "conflict.lastest": 'is no setting; did you mean "latest"?',
      direction: 'has to be one of one-way, both; did you mean "both"?',
      "conflictLog.keep": "has to be a time such as 30d, 12h or 15m",
      "nodes.source": "has to consist of 1 to 63 characters, without spaces and commas",
      "nodes.target": "has to be a text",
      jobs: "is no setting",
      deltaLimit: "has to be a size such as 128MB or 1GB",
      "copy.jobs": "has to be a whole number from 1 to 64",
      "copy.indexJobs": "has to be a whole number from 1 to 64",
      "copy.partSize": "has to be at least 8kB",
      "copy.indexMemory": "has to be a size such as 128MB or 1GB",
      "copy.jbos": 'is no setting; did you mean "jobs"?',
      "overrides.public.users.capture": 'has to be one of row, statement; did you mean "row"?',
      "overrides.public.users.skipNoop": "has to be true or false",
      "overrides.public.people.conflict": expect.stringMatching(/^has to be one of source-wins, .*"skip"\?$/),
      "overrides.public.people.target":
        "public.users is mapped to the same table: each needs a discriminator with a value of its own",
      "overrides.public.x*": "a pattern with * or ? cannot be mapped to one target table",
    });
  });

  it.each([null, [], "x", 3])("refuses settings that are %j", (settings) => {
    expect(problemsOf(() => resolveConfig(settings as unknown as SyncOptions, {}))).toHaveProperty(
      "settings",
    );
  });
});

it.each([
  ["128MB", 128 * 1024 ** 2],
  ["1 gb", 1024 ** 3],
  ["1.5GiB", 1.5 * 1024 ** 3],
  ["8kB", 8192],
  ["10B", 10],
  [4096, 4096],
  ["12", 12],
  ["1XB", undefined],
  ["-1", undefined],
  ["", undefined],
  [Number.NaN, undefined],
  ["99999999TB", undefined],
])("the size %j is %j bytes", (size, bytes) => {
  expect(parseSize(size)).toBe(bytes);
});

it.each([
  ["30d", 30 * 86_400],
  ["2w", 14 * 86_400],
  ["12 h", 43_200],
  ["15m", 900],
  ["15min", 900],
  ["0", 0],
  [90, 90],
  ["1.5h", 5400],
  ["", undefined],
  ["-1d", undefined],
  ["1y", undefined],
  ["99999w", undefined],
  [Number.NaN, undefined],
])("the time %j is %j seconds", (time, seconds) => {
  expect(parseDuration(time)).toBe(seconds);
});

describe("readConfigFile", () => {
  it("expands variables in values only", () => {
    const path = write(
      [
        "source: ${SOURCE}",
        'target: "postgresql://u:${PASSWORD}@t/d"',
        "tables: [public.*, '${T}.x']",
        "name: a$b",
        "exclude: ['$${T}']",
        "overrides: { '${T}': {} }",
      ].join("\n"),
    );
    const file = readConfigFile(path, { SOURCE: "host=s", PASSWORD: "${T}: x", T: "app" });
    expect(file).toEqual({
      settings: {
        source: "host=s",
        target: "postgresql://u:${T}: x@t/d",
        tables: ["public.*", "app.x"],
        name: "a$b",
        exclude: ["${T}"],
        overrides: { "${T}": {} },
      },
      problems: [],
    });
  });

  it("reports variables that are not set", () => {
    const path = write("source: ${NONE}\ncopy: { partSize: '${EMPTY}', jobs: '${ no }' }");
    expect(readConfigFile(path, { EMPTY: "" }).problems).toEqual([
      { subject: "source", message: "the variable NONE is not set" },
      { subject: "copy.partSize", message: "the variable EMPTY is not set" },
      { subject: "copy.jobs", message: expect.stringContaining("does not begin a variable") },
    ]);
  });

  it.each([
    ["source: [", /line \d+, column \d+ is not correct YAML/],
    ["source: 'secret\ntarget: secret", /not correct YAML/],
    ["source: secret: secret", /line 1, column \d+ is not correct YAML/],
    ["source: a\nsource: secret", /line 2, column 1 is not correct YAML \(duplicate key\)/],
    ["tables:\n  - *.audit_*\nsource: secret", /line 2: a value that begins with \* has to be in quotes/],
    ["- secret", /names and values/],
    ["secret", /names and values/],
  ])("explains what is wrong with %j", (text, message) => {
    const { problems } = readConfigFile(write(text), {});
    expect(problems.map((each) => each.message)).toContainEqual(expect.stringMatching(message));
    expect(JSON.stringify(problems)).not.toContain("secret");
  });

  it.each([
    [
      "aliases that double at every line",
      [
        "a0: &a0 [s3cret, s3cret]",
        ...Array.from({ length: 30 }, (_, n) => `a${n + 1}: &a${n + 1} [*a${n}, *a${n}]`),
      ].join("\n"),
      "its aliases (*name) stand for too much, or for themselves",
    ],
    [
      "a billion laughs in one line",
      `source: &a {a: [s3cret]}\nb: &b [${"*a,".repeat(99)}*a]\nc: &c [${"*b,".repeat(99)}*b]\nd: [${"*c,".repeat(99)}*c]`,
      "its aliases (*name) stand for too much, or for themselves",
    ],
    [
      "an anchor that holds itself",
      "copy: &a\n  x: *a\n",
      "line 2: the alias stands for a part that it is in",
    ],
    ["one deeper down", "copy: &a\n  x: [{ y: *a }]\n", "line 2: the alias stands for a part that it is in"],
    [
      "the file as a whole",
      "&a\nsource: s3cret\nx: *a\n",
      "line 3: the alias stands for a part that it is in",
    ],
    [
      "an alias without an anchor",
      "tables: [*x]\n",
      expect.stringContaining("has to be in quotes") as string,
    ],
    ["a huge file", `# ${"s3cret ".repeat(200_000)}`, "the file is larger than 1 MB, which no settings are"],
    ["very deep brackets", `tables: ${"[".repeat(100_000)}`, expect.any(String) as string],
    ["very deep pairs", `tables: ${"[".repeat(5000)}${"]".repeat(5000)}`, expect.any(String) as string],
    ["a list", "- source: s3cret\n", expect.stringContaining("names and values") as string],
    ["a text", "s3cret\n", expect.stringContaining("names and values") as string],
    ["a number", "42\n", expect.stringContaining("names and values") as string],
    [
      "two documents",
      "source: s3cret\n---\nsource: s3cret2\n",
      expect.stringContaining("(multiple docs)") as string,
    ],
    [
      "a name twice",
      "source: s3cret\nsource: s3cret2\n",
      expect.stringContaining("(duplicate key)") as string,
    ],
    ["a tab", "copy:\n\tjobs: 4\n", expect.stringContaining("(tab as indent)") as string],
    [
      "a bracket that is not closed",
      "tables: [s3cret\nsource: x\n",
      expect.stringContaining("not correct YAML") as string,
    ],
    ["no text at all", "\u0000\u0001\uFFFD", expect.any(String) as string],
  ])("is refused with a word about it: %s", (_, text, message) => {
    const file = write(text);
    const problems = problemsOf(() => loadOptions({ file }, {}));
    expect(problems[file] ?? problems["tables"]).toEqual(message);
    expect(JSON.stringify(problems)).not.toContain("s3cret");
  });

  it("may use anchors and merge keys as YAML has them", () => {
    const text = `
      copy: &c { jobs: 2 }
      source: host=s
      target: host=t
      overrides: { a: &o { capture: statement }, b: *o, __proto__: { capture: statement } }`;
    const options = loadOptions({ file: write(text) }, {});
    expect(Object.entries(resolveConfig(options, {}).overrides)).toEqual(
      ["a", "b", "__proto__"].map((name) => [name, { capture: "statement" }]),
    );
  });

  it("may be empty, but has to exist", () => {
    expect(readConfigFile(write("# nothing\n"), {})).toEqual({ settings: {}, problems: [] });
    const path = join(folder, "none.yaml");
    expect(readConfigFile(path, {}).problems).toEqual([{ subject: path, message: "there is no such file" }]);
  });
});

describe("loadOptions", () => {
  const flag = (origin: string, path: string, value: unknown) => ({ origin, path, value });

  it("prefers flags to variables and variables to the file", () => {
    const file = write(
      "name: file\nsource: host=file user=a dbname=d\ntarget: host=file\ncopy: { jobs: 1, indexJobs: 3 }\n",
    );
    const source = "host=FILE user=b dbname=d";
    const env = { REPLICATE_NAME: "variable", REPLICATE_SOURCE: source, REPLICATE_TARGET: "" };
    const flags = [
      flag("--name", "name", "flag"),
      flag("--jobs", "copy.jobs", "2"),
      flag("--tables", "tables", undefined),
    ];
    const options = loadOptions({ file, flags }, env);
    expect(options).toEqual({
      name: "flag",
      source,
      target: "host=file",
      copy: { jobs: "2", indexJobs: 3 },
    });
    expect(resolveConfig(options, env).copy).toMatchObject({ jobs: 2, indexJobs: 3 });
  });

  describe("of a variable and the file that lead to different databases", () => {
    const given = "host=old.example.org dbname=shop user=app password=s3cret";
    const other = {
      host: "postgresql://app:s3cret@other.example.org/shop",
      port: "postgresql://app:s3cret@old.example.org:5433/shop",
      database: "postgresql://app:s3cret@old.example.org/shop_test",
      address: `${given} hostaddr=10.1.2.3`,
      socket: "host=/tmp dbname=shop user=app password=s3cret",
    };
    const same = {
      text: given,
      url: "postgresql://other@OLD.example.org:5432/shop",
      password: "host=old.example.org dbname=shop user=app password=another",
    };

    it.each(["source", "target"])("names both, of the %s", (side) => {
      for (const [what, text] of Object.entries(other)) {
        const sides = { source: "host=s dbname=a", target: "host=t dbname=a", [side]: given };
        const file = write(JSON.stringify(sides));
        const variable = `REPLICATE_${side.toUpperCase()}`;
        const env = { [variable]: text };
        const problems = problemsOf(() => loadOptions({ file }, env));
        expect(Object.keys(problems), what).toEqual([variable]);
        expect(problems[variable]).toContain("app@old.example.org/shop");
        expect(problems[variable]).toContain(file);
        expect(JSON.stringify(problems)).not.toContain("s3cret");
        // The command line decides, for its side.
        for (const [origin, value] of [
          [`--${side}`, text],
          [`--${side}-…`, "host=third dbname=shop"],
        ] as const)
          expect(loadOptions({ file, flags: [flag(origin, side, value)] }, env)).toMatchObject({
            [side]: value,
          });
        const elsewhere = side === "source" ? "target" : "source";
        const flags = [flag(`--${elsewhere}`, elsewhere, "host=third dbname=shop")];
        expect(Object.keys(problemsOf(() => loadOptions({ file, flags }, env)))).toEqual([variable]);
      }
    });

    it.each(Object.entries(same))("are none where it is the same one (%s)", (_, text) => {
      const file = write(JSON.stringify({ source: given, target: "host=t dbname=a" }));
      expect(loadOptions({ file }, { REPLICATE_SOURCE: text })).toMatchObject({ source: text });
    });

    it("are all named at once, with the other problems", () => {
      const file = write(JSON.stringify({ source: given, target: given, keyless: "x" }));
      const env = { REPLICATE_SOURCE: other.host, REPLICATE_TARGET: other.port };
      expect(Object.keys(problemsOf(() => loadOptions({ file }, env)))).toEqual([
        "REPLICATE_SOURCE",
        "REPLICATE_TARGET",
        "keyless",
      ]);
    });
  });

  it("finds the file through REPLICATE_CONFIG", () => {
    const env = { REPLICATE_CONFIG: write("source: host=s\ntarget: host=t\n") };
    expect(loadOptions({}, env)).toEqual({ source: "host=s", target: "host=t" });
  });

  it("reports the problems of all origins, each under the name that the user knows", () => {
    const file = write("tabels: [a]\nsource: ${NONE}\ncopy: { partSize: 1XB }\n");
    const flags = [flag("--jobs", "copy.jobs", "many")];
    expect(problemsOf(() => loadOptions({ file, flags }, { REPLICATE_TARGET: "nonsense" }))).toEqual({
      source: "the variable NONE is not set",
      tabels: 'is no setting; did you mean "tables"?',
      REPLICATE_TARGET: expect.stringContaining("neither a URL"),
      "--jobs": "has to be a whole number from 1 to 64",
      "copy.partSize": "has to be a size such as 128MB or 1GB",
    });
  });

  it("does not ask for a variable in a line that a flag replaces", () => {
    const file = write("source: ${NONE}\ntarget: host=t\n");
    expect(loadOptions({ file, flags: [flag("--source", "source", "host=s")] }, {})).toMatchObject({
      source: "host=s",
    });
  });

  it("does not miss what an unreadable file may hold", () => {
    const file = join(folder, "none.yaml");
    expect(problemsOf(() => loadOptions({ file, flags: [flag("--jobs", "copy.jobs", "x")] }, {}))).toEqual({
      [file]: "there is no such file",
      "--jobs": "has to be a whole number from 1 to 64",
    });
  });
});

describe("schemaChanges", () => {
  const cases = [
    { given: {}, value: "apply" },
    { given: { schemaChanges: "stop" }, value: "stop" },
    { given: { direction: "both" }, value: "stop" },
    { given: { conflict: "latest" }, value: "stop" },
    { given: { direction: "both", schemaChanges: "stop" }, value: "stop" },
  ] as const;
  it.each(cases)("$given comes to $value", ({ given, value }) => {
    expect(resolveConfig({ ...sides, ...given }, {}).schemaChanges).toBe(value);
  });

  const overrides = {
    "public.a": { schemaChanges: "apply" },
    "public.b": { schemaChanges: "stop" },
  } as const;
  it.each([
    [{ direction: "both", schemaChanges: "apply" }, "schemaChanges"],
    [{ conflict: "target-wins", schemaChanges: "apply" }, "schemaChanges"],
    [{ direction: "both", overrides }, "overrides.public.a.schemaChanges"],
    [{ schemaChanges: "perhaps" }, "schemaChanges"],
  ] as const)("refuses %j", (given, subject) => {
    expect(Object.keys(problemsOf(() => resolveConfig({ ...sides, ...given } as SyncOptions, {})))).toEqual([
      subject,
    ]);
  });
});
