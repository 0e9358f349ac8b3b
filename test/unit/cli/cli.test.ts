import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";

import { settingsOf, parseArguments } from "../../../src/cli/arguments.ts";
import { programHelp, reference, verbHelp } from "../../../src/cli/help.ts";
import { main, reportCrash } from "../../../src/cli/main.ts";
import { options } from "../../../src/cli/options.ts";
import { exitCodes, optionsOf, verbNames, verbs } from "../../../src/cli/verbs.ts";
import type { Terminal } from "../../../src/cli/terminal.ts";
import { errorRules } from "../../../src/index.ts";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "replicate-cli-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

interface Outcome {
  code: number;
  out: string;
  err: string;
  titles: string[];
}

async function run(argv: readonly string[], extra: Partial<Terminal> = {}): Promise<Outcome> {
  const outcome: Outcome = { code: -1, out: "", err: "", titles: [] };
  outcome.code = await main(argv, {
    env: { HOME: folder },
    stdout: { write: (text) => (outcome.out += text) },
    stderr: { write: (text) => (outcome.err += text) },
    setTitle: (title) => outcome.titles.push(title),
    ...extra,
  });
  return outcome;
}

const nowhere = ["--source", "host=127.0.0.1 port=1", "--target", "host=127.0.0.1 port=1"];

describe("help", () => {
  it.each(verbNames)("of %s says what the table says", async (verb) => {
    const { code, out, err } = await run([verb, "--help"]);
    expect(code).toBe(0);
    expect(err).toBe("");
    expect(out).toBe(`${verbHelp(verb)}\n`);
    expect(out).toContain(verbs[verb].summary);
    for (const name of verbs[verb].options) expect(out).toContain(`--${name}`);
    for (const { command } of verbs[verb].examples) expect(out).toContain(`replicate ${command}`);
    expect((await run(["help", verb])).out).toBe(out);
    expect((await run([verb, "-h", ...nowhere])).out).toBe(out);
  });

  it("has an example for every verb that the parser takes", () => {
    for (const verb of verbNames) {
      expect(verbs[verb].examples.length).toBeGreaterThan(0);
      for (const { command } of verbs[verb].examples) {
        const words = [...command.matchAll(/'([^']*)'|(\S+)/g)].map(
          ([, quoted, plain]) => quoted ?? plain ?? "",
        );
        expect(parseArguments(words).verb).toBe(verb);
      }
    }
  });

  it("of the program lists the verbs and the exit codes", async () => {
    const { code, out } = await run(["--help"]);
    expect([code, out]).toEqual([0, `${programHelp()}\n`]);
    for (const verb of verbNames) expect(out).toContain(`  ${verb} `);
    for (const [exitCode, says] of exitCodes) expect(out).toContain(`  ${exitCode}  ${says}`);
    expect(await run(["help"])).toMatchObject({ code, out });
  });

  it("comes with exit code 2 where nothing was asked", async () => {
    expect(await run([])).toMatchObject({ code: 2, out: "", err: `${programHelp()}\n` });
  });

  it("fits a terminal of 100 columns, but for the example", () => {
    for (const text of [programHelp(), ...verbNames.map((verb) => verbHelp(verb))]) {
      expect(
        text.split("\n").filter((line) => line.length > 100 && !line.includes("replicate run --source")),
      ).toEqual([]);
    }
  });

  it("and the reference explain every option", () => {
    for (const name of Object.keys(options)) expect(reference()).toContain(`\`--${name}`);
    for (const { help } of Object.values(options)) expect(help).not.toBe("");
    expect(new Set(verbNames.flatMap((verb) => optionsOf(verb)))).toEqual(new Set(Object.keys(options)));
  });

  it("knows all exit codes that errors have", () => {
    const used = new Set(Object.values(errorRules).map(({ exitCode }) => exitCode));
    for (const exitCode of used) expect(exitCodes.map(([code]) => code)).toContain(exitCode);
  });
});

it("tells its version", async () => {
  const { code, out } = await run(["--version"]);
  expect(code).toBe(0);
  expect(out).toMatch(/^\d+\.\d+\.\d+\n$/);
  expect((await run(["copy", "--version"])).out).toBe(out);
});

describe("wrong usage", () => {
  it.each([
    [["copyy"], /copyy is no command; did you mean "copy"\?/],
    [["help", "statsu"], /statsu is no command; did you mean "status"\?/],
    [["copy", "--job", "3"], /--job is no option; did you mean "--jobs"\?/],
    [["copy", "-x"], /-x is no option/],
    [["status", "--jobs", "3"], /--jobs is no option of status/],
    [["copy", "--jobs"], /--jobs needs a value/],
    [["init", "--tables"], /--tables needs a value/],
    [["copy", "--name", "a", "--name", "b"], /--name is given more than once/],
    [["copy", "all"], /all is one word too many/],
    [["copy", "--overwrite", "--adopt"], /--overwrite does not go together with --adopt/],
    [["drop", "--source-only", "--target-only"], /does not go together/],
    [["copy", "--source", "x", "--source-host", "y"], /--source does not go together with --source-host/],
    [["status", "--log-level", "loud"], /--log-level has to be one of trace, debug, info/],
    [["sequences", "--margin", "-1"], /--margin (needs a value|has to be a whole number)/],
    [["sequences", "--margin=x"], /--margin has to be a whole number/],
    [["--name", "x"], /command is missing: preflight, schema, init/],
  ])("%j", async (argv, message) => {
    const { code, out, err } = await run(argv);
    expect(code).toBe(2);
    expect(out).toBe("");
    expect(err).toMatch(/^error USAGE_INVALID: /);
    expect(err).toMatch(message);
    expect(err).toMatch(/\nhint: Run: replicate .*--help\n$/);
    expect(err).not.toMatch(/\n\s+at /);
  });

  it("is reported all at once, and as JSON", async () => {
    const { code, out, err } = await run(["copy", "--job", "3", "--watch", "--part-size", "--json"]);
    expect(code).toBe(2);
    expect(err).toContain("3 mistakes");
    expect(JSON.parse(out)).toEqual({
      error: {
        code: "USAGE_INVALID",
        message: "3 mistakes",
        hint: "Run: replicate copy --help",
        problems: [
          { subject: "--job", message: 'is no option; did you mean "--jobs"?' },
          { subject: "--watch", message: "is no option of copy" },
          { subject: "--part-size", message: "needs a value" },
        ],
      },
    });
  });
});

describe("settings", () => {
  it("reports five mistakes of a file and one of a flag at once, before anything is connected", async () => {
    const file = join(folder, "replicate.yaml");
    const lines = [
      "nmae: x",
      "source: ${NOT_SET}",
      "target: mysql://u:geheim@h",
      "tables: public.*",
      "copy: { partSize: big }",
    ];
    writeFileSync(file, lines.join("\n"));
    const { code, out, err } = await run(["copy", "--config", file, "--jobs", "0", "--json"]);
    expect(code).toBe(2);
    const { error } = JSON.parse(out) as {
      error: { code: string; problems: { subject: string; message: string }[] };
    };
    expect(error.code).toBe("CONFIG_INVALID");
    expect(error.problems.map(({ subject }) => subject).sort()).toEqual([
      "--jobs",
      "copy.partSize",
      "nmae",
      "source",
      "tables",
      "target",
    ]);
    for (const { subject, message } of error.problems) expect(err).toContain(`  ${subject}: ${message}`);
    expect(out + err).not.toContain("geheim");
  });

  it("come from flags by the names of the file", () => {
    const { verb, values } = parseArguments([
      "run",
      "--name",
      "n",
      "--tables",
      "a",
      "b.*",
      "--tables",
      "c",
      "--exclude-tables",
      "d",
      "--jobs=8",
      "--part-size",
      "1MB",
    ]);
    expect(verb).toBe("run");
    expect(Object.fromEntries(settingsOf(values, "run").map(({ path, value }) => [path, value]))).toEqual({
      name: "n",
      tables: ["a", "b.*", "c"],
      exclude: ["d"],
      "copy.jobs": "8",
      "copy.partSize": "1MB",
    });
  });

  it("put the parts of a connection together", () => {
    const { values } = parseArguments([
      "status",
      "--source-host",
      "h",
      "--source-user",
      String.raw`o'br\ian`,
      "--target",
      "host=t",
    ]);
    expect(settingsOf(values, "status")).toEqual([
      { origin: "--source-…", path: "source", value: String.raw`host='h' user='o\'br\\ian'` },
      { origin: "--target", path: "target", value: "host=t" },
    ]);
  });

  it("of verify do not take its tables for those of the sync", () => {
    const { values } = parseArguments(["verify", "--tables", "a"]);
    expect(settingsOf(values, "verify")).toEqual([]);
  });
});

describe("the process", () => {
  it("is named after verb and sync, without secrets", async () => {
    const { titles } = await run([
      "status",
      "--name",
      "shop",
      "--source",
      "nonsense:geheim",
      "--target",
      "x",
    ]);
    expect(titles).toEqual(["replicate status shop"]);
    const named = await run(["status", ...nowhere]);
    expect(named.titles.at(-1)).toBe("replicate status default");
  });

  it("fails with the code of the table where no server is", async () => {
    const { code, out, err } = await run(["status", ...nowhere]);
    expect(code).toBe(3);
    expect(out).toBe("");
    expect(err).toMatch(
      /^\S+ status default: source .*\nerror SERVER_UNREACHABLE: cannot connect to the (source|target) 127\.0\.0\.1:1\//,
    );
    expect(err).toContain("\nhint: Check host, port and firewall");
  });

  it("writes one line of JSON for an error of a verb that writes lines, a document otherwise", async () => {
    expect(
      (await run(["follow", "--json", ...nowhere, "--name", "a b"])).out.trim().split("\n"),
    ).toHaveLength(1);
    expect(
      (await run(["status", "--json", ...nowhere, "--name", "a b"])).out.trim().split("\n").length,
    ).toBeGreaterThan(1);
  });

  it("reports what nobody caught as a defect", () => {
    let err = "";
    const terminal = {
      env: {},
      stdout: { write: () => undefined },
      stderr: { write: (text: string) => (err += text) },
    };
    expect(reportCrash(new TypeError("x is not a function"), terminal)).toBe(3);
    expect(err).toMatch(/^error INTERNAL: x is not a function\nhint: This is a defect/);
    expect(err).toMatch(/\n\s+at /);
  });

  it("ends a second request to stop at once", async () => {
    const exits: number[] = [];
    const { err } = await run(["status", ...nowhere], {
      onStop: (callback) => {
        callback("SIGTERM");
        callback("SIGINT");
        return () => undefined;
      },
      exit: (code) => exits.push(code),
    });
    expect(exits).toEqual([130]);
    expect(err).toContain("SIGTERM: ending cleanly");
  });
});

describe("drop", () => {
  it("asks first, and takes nothing but yes for an answer", async () => {
    for (const answer of ["", "n", "no", "yes please"]) {
      const questions: string[] = [];
      const ask = (question: string): Promise<string> => {
        questions.push(question);
        return Promise.resolve(answer);
      };
      const { code, out } = await run(["drop", "--name", "shop", ...nowhere], { ask });
      expect([code, out]).toEqual([1, "nothing was changed\n"]);
      expect(questions).toEqual(["Remove the sync shop from both servers? The rows stay. [y/N] "]);
    }
    const { code } = await run(["drop", ...nowhere], { ask: () => Promise.resolve(" Y ") });
    expect(code).toBe(3);
  });

  it("needs --yes or --dry-run where nobody can be asked", async () => {
    const { code, err } = await run(["drop", ...nowhere]);
    expect(code).toBe(2);
    expect(err).toContain("USAGE_INVALID: --yes is needed");
    expect((await run(["drop", "--yes", ...nowhere])).code).toBe(3);
    expect((await run(["drop", "--dry-run", ...nowhere])).code).toBe(3);
  });
});

describe("conflicts", () => {
  it.each([
    ["conflicts resolv 3", "resolv", "is not what conflicts can do"],
    ["conflicts resolve --with source", "ID", "needs to be given, or --all-pending instead"],
    ["conflicts resolve 3 --all-pending --with source", "ID", "needs to be given, or --all-pending instead"],
    ["conflicts resolve 3", "--with", "is missing: source or target"],
    ["conflicts resolve 3 --with souce", "--with", 'has to be one of source, target; did you mean "source"?'],
    ["conflicts resolve 3 x4 --with source", "x4", "is not the number of a conflict"],
    ["conflicts resolve 3 --with source --tables a", "--tables", "goes together with --all-pending only"],
    [
      "conflicts resolve --all-pending --pending --with source",
      "--pending",
      "belongs to the list of conflicts",
    ],
    ["conflicts resolve --all-pending --with source", "--yes", "is needed where nobody can be asked"],
    ["conflicts --with source", "--with", "belongs to conflicts resolve"],
    ["conflicts --limit 3 --all", "--limit", "does not go together with --all"],
    ["conflicts --limit few", "--limit", "has to be a whole number"],
    ["status resolve 3", "resolve", "is one word too many"],
  ])("%s: refused", async (line, subject, message) => {
    const { code, err } = await run([...line.split(" "), ...nowhere]);
    expect(code).toBe(2);
    // The only mistake is the message itself, others are a list.
    expect(
      [`error USAGE_INVALID: ${subject} ${message}`, `  ${subject}: ${message}`].some((each) =>
        err.includes(each),
      ),
      err,
    ).toBe(true);
  });
});
