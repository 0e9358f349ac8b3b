import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";

import { Output, toJson } from "../../../src/cli/output.ts";
import { Progress } from "../../../src/cli/progress.ts";
import { ReplicateError, type SyncEvent } from "../../../src/index.ts";

beforeEach(() => {
  vi.useFakeTimers({ now: new Date("2030-01-02T03:04:05Z") });
});
afterEach(() => {
  vi.useRealTimers();
});

function make(
  given: { json?: boolean; isTTY?: boolean; level?: string; format?: "text" | "json"; columns?: number } = {},
) {
  const said = { out: "", err: "" };
  const terminal = {
    env: {},
    stdout: { write: (text: string) => (said.out += text) },
    stderr: { write: (text: string) => (said.err += text), isTTY: given.isTTY, columns: given.columns },
  };
  const output = new Output(terminal, {
    json: given.json ?? false,
    logLevel: given.level ?? "info",
    logFormat: given.format ?? "text",
  });
  return { output, said };
}

function copyProgress(bytesDone: number): SyncEvent {
  return {
    type: "copy-progress",
    rowsDone: 1234,
    bytesDone,
    bytesTotal: 1024 ** 2,
    bytesPerSecond: 2048,
    etaSeconds: 90,
    indexesDone: 1,
    indexesTotal: 3,
    tables: [{ table: "public.users", rowsDone: 12, bytesDone: 512, bytesTotal: 1024 }],
    building: [{ index: "users_pkey", phase: "loading tuples", percent: 40.6 }],
  };
}

describe("log", () => {
  it("is text with fields behind", () => {
    const { output, said } = make();
    output.log.info({}, "hello");
    output.log.warn({ table: "public.users", rows: 3 }, "careful");
    output.log.error({ err: new Error("broken") }, "failed");
    output.log.debug({}, "unheard");
    expect(said.err).toBe(
      "03:04:05 hello\n03:04:05 warn: careful (table=public.users, rows=3)\n03:04:05 error: failed (error=broken)\n",
    );
    expect(said.out).toBe("");
  });

  it("is JSON when asked for, and silent when asked for", () => {
    const { output, said } = make({ format: "json" });
    output.log.warn({ rows: 3 }, "careful");
    expect(JSON.parse(said.err)).toMatchObject({ level: 40, rows: 3, msg: "careful" });
    const silent = make({ level: "silent" });
    silent.output.log.error({}, "failed");
    expect(silent.said.err).toBe("");
  });
});

describe("result", () => {
  it("is text or JSON, never both", () => {
    for (const json of [false, true]) {
      const { output, said } = make({ json });
      output.print("for people");
      output.document({ for: "programs" });
      expect(said.out).toBe(json ? '{\n  "for": "programs"\n}\n' : "for people\n");
    }
  });

  it("writes big numbers exactly", () => {
    expect(toJson({ a: 12n, b: 2n ** 60n })).toBe('{"a":12,"b":"1152921504606846976"}');
  });
});

describe("progress", () => {
  it("off a terminal is a line every five seconds", () => {
    const { output, said } = make();
    const { onEvent } = new Progress(output, false);
    for (let second = 0; second < 12; second++) {
      onEvent(copyProgress(second * 1024 * 10));
      vi.advanceTimersByTime(1000);
    }
    const lines = said.err.trim().split("\n");
    expect(lines).toHaveLength(3);
    expect(lines[1]).toBe(
      "03:04:10 copying: 4 %, 50.0 kB of 1.0 MB, 1,234 rows, 2.0 kB/s, indexes 1 of 3, users_pkey: loading tuples 40 %, about 1 min 30 s left",
    );
    expect(said.err).not.toContain("\u001B");
  });

  it("on a terminal is a block that is drawn again, below other lines", () => {
    const { output, said } = make({ isTTY: true, columns: 200 });
    const { onEvent } = new Progress(output, false);
    onEvent(copyProgress(512 * 1024));
    const block = [
      "copying [############............] 50 %  512 kB of 1.0 MB  1,234 rows  2.0 kB/s  about 1 min 30 s left",
      "  public.users  [######......]  50 %  512 B of 1.0 kB  12 rows",
      "indexes [#######.................] 1 of 3",
      "  users_pkey: loading tuples 40 %",
      "",
    ].join("\n");
    expect(said.err).toBe(block);
    said.err = "";
    onEvent(copyProgress(512 * 1024));
    expect(said.err).toBe("");
    onEvent({ type: "table-copied", table: "public.users", rows: 12, bytes: 1024 });
    expect(said.err).toBe(`\u001B[4A\u001B[J03:04:05 copied public.users: 12 rows, 1.0 kB\n${block}`);
    said.err = "";
    output.endProgress();
    expect(said.err).toBe("\u001B[4A\u001B[J");
  });

  it("never draws lines that the terminal would break", () => {
    const { output, said } = make({ isTTY: true, columns: 40 });
    new Progress(output, false).onEvent(copyProgress(1));
    for (const line of said.err.trimEnd().split("\n")) expect(line.length).toBeLessThan(40);
  });

  it("is quiet at log level warn", () => {
    for (const isTTY of [true, false]) {
      const { output, said } = make({ level: "warn", isTTY });
      const { onEvent } = new Progress(output, false);
      onEvent(copyProgress(1));
      onEvent({ type: "table-copied", table: "t", rows: 1, bytes: 1 });
      expect(said.err).toBe("");
      onEvent({ type: "warning", message: "careful" });
      expect(said.err).toBe("03:04:05 warn: careful\n");
    }
  });

  it("is a line of JSON per event where lines are wanted, and batches only once", () => {
    const { output, said } = make({ json: true });
    const progress = new Progress(output, true);
    const batch = { number: 7, position: "1:2:", rows: 3, tables: 1, seconds: 0.1, lagSeconds: 0.2 };
    progress.onEvent({ type: "caught-up", position: "1:2:" });
    progress.onEvent({ type: "batch-applied", batch });
    progress.batch(batch);
    expect(
      said.out
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line) as unknown),
    ).toEqual([
      { type: "caught-up", position: "1:2:" },
      { type: "batch-applied", batch },
    ]);
    expect(said.err).toContain("following: batch 7, 3 rows applied, lag 0.2 s");
  });
});

it("prints problems with their remedies", () => {
  const { output, said } = make({ json: true });
  const error = new ReplicateError("PREFLIGHT_BLOCKED", "2 findings block the start", {
    problems: [
      { subject: "public.a", message: "has no key", remedy: "alter table a\n  add primary key (id);" },
      { subject: "source", message: "is a standby" },
    ],
  });
  output.error(error, { withStack: false, isLine: true });
  expect(said.err).toBe(
    [
      "error PREFLIGHT_BLOCKED: 2 findings block the start",
      "  public.a: has no key",
      "      alter table a",
      "        add primary key (id);",
      "  source: is a standby",
      `hint: ${error.hint}`,
      "",
    ].join("\n"),
  );
  expect(JSON.parse(said.out)).toMatchObject({
    error: { code: "PREFLIGHT_BLOCKED", problems: error.problems },
  });
});
