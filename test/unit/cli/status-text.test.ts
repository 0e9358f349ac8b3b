import { describe, expect, it } from "vitest";

import { statusLines } from "../../../src/cli/status-text.ts";
import type { Phase, Status } from "../../../src/index.ts";

const now = new Date("2030-01-01T12:00:00Z");

function status(changes: Partial<Status> = {}): Status {
  return {
    sync: "shop",
    phase: "following",
    direction: "one-way",
    source: { host: "old.example.org", port: 5432, database: "shop", role: "app" },
    target: { host: "10.0.0.7", port: 6432, database: "shop", role: "app" },
    back: null,
    runner: {
      alive: true,
      host: "worker-1",
      pid: 42,
      since: "2030-01-01T09:00:00Z",
      seenAt: "2030-01-01T11:59:59Z",
      batch: null,
    },
    copy: {
      tablesDone: 2,
      tablesTotal: 2,
      rowsDone: 1000,
      bytesDone: 1024 ** 2,
      bytesTotal: 1024 ** 2,
      indexesDone: 3,
      indexesTotal: 3,
      etaSeconds: null,
    },
    follow: {
      position: "1:2:",
      batches: 12,
      rowsApplied: 345,
      rowsPerSecond: 7,
      lastBatchAt: "2030-01-01T11:59:58Z",
    },
    lag: { rows: 0, seconds: 0, blockedBy: null, trend: null },
    notReplicated: [],
    notReplicatedReasons: {},
    waits: [],
    conflicts: 0,
    parked: 0,
    lastError: null,
    upkeep: null,
    owed: { side: "target", open: 0, leftInvalid: [] },
    switch: null,
    fence: null,
    held: [],
    schemaChanges: [],
    sourceError: null,
    tables: ["public.a", "public.b"].map((name) => ({
      source: name,
      target: name,
      state: "following",
      rows: 500,
      bytes: 1024,
      pending: 0,
      parked: 0,
      lastChangeAt: null,
      reload: null,
    })),
    ...changes,
  };
}

const text = (changes: Partial<Status> = {}): string => statusLines(status(changes), now).join("\n");

it("is short when all is well", () => {
  expect(text()).toBe(
    [
      "shop: following - the target keeps up with the source",
      "  source   app@old.example.org/shop",
      "  target   app@10.0.0.7:6432/shop",
      "  runner   alive on worker-1, pid 42, for 3 h",
      "  copied   2 of 2 tables, 1,000 rows",
      "  applied  345 rows in 12 batches, the last one 2 s ago, 7 rows/s now",
      "  lag      none",
    ].join("\n"),
  );
});

it("says what to do when the runner is dead", () => {
  const runner = { alive: false, host: "worker-1", pid: 42, since: null, seenAt: null, batch: null };
  const lag = {
    rows: 12,
    seconds: 90,
    blockedBy: "pid 7 of app, idle in transaction, has a transaction open for 80 s",
    trend: null,
  };
  const shown = text({ runner, lag });
  expect(shown).toContain("runner   none; the last one ran on worker-1, pid 42");
  expect(shown).toContain("lag      1 min 30 s, 12 changes waiting; held up by pid 7 of app");
  expect(shown).toMatch(/next: nobody applies changes: replicate follow --name shop$/);
  expect(text({ runner, sync: "default" })).toMatch(/changes: replicate follow$/);
});

it("shows how far the copy is, and only tables that matter", () => {
  const shown = text({
    phase: "copying",
    runner: { alive: false, host: null, pid: null, since: null, seenAt: null, batch: null },
    copy: { ...status().copy, tablesDone: 1, bytesDone: 1024 ** 2 / 2, indexesDone: 1, etaSeconds: 75 },
    lag: { rows: null, seconds: 0, blockedBy: null, trend: null },
    sourceError: "cannot connect to the source h:1/d",
    tables: [
      {
        ...(status().tables[0] as Status["tables"][number]),
        state: "copying",
        target: "app.a",
        pending: null,
      },
      status().tables[1] as Status["tables"][number],
    ],
  });
  expect(shown).toContain(
    "copy     1 of 2 tables, 512 kB of 1.0 MB (50 %), 1,000 rows, indexes 1 of 3, about 1 min 15 s left",
  );
  expect(shown).toContain("source   app@old.example.org/shop: cannot connect to the source h:1/d");
  expect(shown).toContain("lag      unknown, because the source cannot be asked");
  expect(shown).toMatch(/ {2}public\.a -> app\.a {2}copying {3}500 {2}1\.0 kB {8}\?/);
  expect(shown).not.toContain("public.b");
  expect(shown).toContain("1 other table following with nothing waiting");
  expect(shown).toContain("the same command resumes it: replicate copy --name shop");
});

it("shows the last error with its remedy, and whether it is over", () => {
  const lastError = {
    code: "SOURCE_LOST",
    message: "gone",
    hint: "Bring it back.",
    at: "2030-01-01T11:00:00Z",
    cleared: false,
  };
  const shown = text({
    phase: "failed",
    lastError,
    runner: { alive: false, host: null, pid: null, since: null, seenAt: null, batch: null },
  });
  expect(shown).toContain("last error, 1 h ago, not over yet:");
  expect(shown).toContain("SOURCE_LOST: gone");
  expect(shown).toContain("what to do: Bring it back.");
  expect(shown).toMatch(/next: when that is settled: replicate follow --name shop$/);
  expect(text({ lastError: { ...lastError, cleared: true } })).toContain("over since");
});

it("lists what the target is owed", () => {
  const owed = {
    side: "target" as const,
    open: 1,
    leftInvalid: [{ table: "public.b", constraint: "b_fk", reason: "3 rows have no partner" }],
  };
  expect(text({ owed })).toContain("deferred  1 index, constraint or trigger of the target to be restored");
  expect(text({ owed: { ...owed, side: "source" } })).toMatch(
    /deferred +1 index, constraint or trigger of the source are away/,
  );
  expect(text({ owed })).toContain("b_fk on public.b stays NOT VALID:\n      3 rows have no partner");
});

it("does not list hundreds of tables", () => {
  const tables = Array.from({ length: 100 }, (_, index) => ({
    ...(status().tables[0] as Status["tables"][number]),
    source: `public.t${index}`,
    pending: 1,
  }));
  expect(text({ tables }).split("\n").length).toBeLessThan(40);
  expect(text({ tables })).toContain("and 80 more; --json lists all");
});

describe.each<Phase>(["new", "initialised", "copying", "copied", "catching-up", "following", "failed"])(
  "phase %s",
  (phase) => {
    it.each([true, false])("is put into words, runner alive: %s", (alive) => {
      const lines = statusLines(
        status({ phase, runner: { alive, host: null, pid: null, since: null, seenAt: null, batch: null } }),
        now,
      );
      expect(lines[0]).toMatch(new RegExp(`^shop: ${phase} - .{15,}$`));
      const isWaitingForPerson = !alive && phase !== "failed";
      if (isWaitingForPerson)
        expect(lines.at(-1)).toMatch(/^next: .*replicate (init|copy|follow) --name shop/);
    });
  },
);

it("says at once what to do where neither side can be written to", () => {
  const fence = { side: "source" as const, since: "2030-01-01T11:59:30Z" };
  const known = {
    way: "cutover" as const,
    step: "fencing" as const,
    isReversible: true,
    isRestored: false,
    isHooked: false,
    isRunning: false,
    startedAt: new Date("2030-01-01T11:55:00Z"),
    fencedAt: null,
    openedAt: null,
  };
  const shown = text({ phase: "fenced", fence, switch: known });
  expect(shown).toContain("shop: fenced - applications cannot write: neither side is open");
  expect(shown).toContain("cutover  interrupted before the new side was open, 5 min ago");
  expect(shown).toContain("fence    the source refuses writes of applications since 30 s");
  expect(shown).toContain("next: at once: replicate cutover --undo --name shop opens the old side again");
  expect(text({ phase: "fenced", fence, switch: { ...known, isRunning: true } })).not.toContain("next:");
  const open = { ...known, step: "open" as const, openedAt: new Date("2030-01-01T11:00:00Z") };
  expect(text({ phase: "cut-over", fence, switch: open })).toContain("cutover  done, 1 h ago");
  expect(text({ phase: "cut-over", fence, switch: { ...open, isReversible: false } })).toContain(
    "next: replicate cutover --finish --name shop",
  );
});

it("says whether it falls behind, and by how much", () => {
  const lag = (trend: number | null, seconds = 120): Partial<Status> => ({
    lag: { rows: 5000, seconds, blockedBy: null, trend },
  });
  expect(text(lag(0.5))).toContain("lag      2 min, 5,000 changes waiting; falling behind by 30 s a minute");
  expect(text(lag(0.5))).toMatch(/next: more is written to the source than the target takes/);
  expect(text(lag(-2))).toMatch(/5,000 changes waiting; none left in about 1 min$/m);
  for (const quiet of [lag(null), lag(0.5, 3), lag(0.001)]) expect(text(quiet)).toMatch(/waiting$/m);
});

it("says what a long batch is at, and when its runner is silent", () => {
  const runner = { alive: true, host: "worker-1", pid: 42, since: null };
  const seenAt = "2030-01-01T11:59:59Z";
  const batch = { since: "2030-01-01T11:59:00Z", changes: 2_000_000, rows: 500_000 };
  expect(text({ runner: { ...runner, seenAt, batch } })).toContain(
    "batch    2,000,000 changes at once, begun 1 min ago: 500,000 rows read, the rest in 3 min at most",
  );
  expect(text({ runner: { ...runner, seenAt, batch: { ...batch, rows: 0 } } })).toContain(
    "looking for the rows",
  );
  expect(text({ runner: { ...runner, seenAt, batch: { ...batch, rows: 2_000_000 } } })).toContain(
    "being written",
  );
  expect(text({ runner: { ...runner, seenAt, batch: null } })).not.toContain("sign of life");
  expect(text({ runner: { ...runner, seenAt: "2030-01-01T11:58:00Z", batch: null } })).toContain(
    "but no sign of life for 2 min",
  );
});

it("names what waits for a lock, and for whom", () => {
  const wait = { side: "source", session: "replicate init", what: "public.a", seconds: 4 } as const;
  expect(text({ waits: [{ ...wait, blockedBy: "pid 9 of app, active, open for 70 s" }] })).toContain(
    "waits    replicate init waits for 4 s on the source for a lock on public.a; held by pid 9 of app, active, open for 70 s",
  );
});

it("says how to see conflicts that are to be resolved", () => {
  expect(text({ conflicts: 3 })).toContain(
    "\n  conflicts  3 to be resolved: replicate conflicts --pending --name shop",
  );
});

it("tells of a sync that makes the source keep changes, and how to give it up", () => {
  const held = {
    sync: "far",
    since: "2030-01-01T09:00:00Z",
    bytes: 2 * 1024 ** 3,
    isOver: true,
    giveUp: "replicate x",
  };
  expect(text({ held: [held] })).toContain(
    "retained  sync far has taken nothing for 3 h, and makes the source retain 2.0 GB of changes, more than deltaLimit; give it up: replicate x",
  );
  const shown = text({ held: [{ ...held, sync: "shop", isOver: false }] });
  expect(shown).toContain(
    "this sync has taken nothing for 3 h, and makes the source retain 2.0 GB of changes",
  );
  expect(shown).not.toContain("give it up");
});

it("names schema changes: those that wait first, with the statement and the reason", () => {
  const change = {
    table: "public.a",
    noticedAt: "2030-01-01T11:59:00Z",
    appliedAt: null,
    seconds: null,
    error: null,
  };
  const schemaChanges = [
    { ...change, state: "applied", statement: "alter table a drop column b", appliedAt: "2030-01-01T11:59:30Z", seconds: 0.5 },
    { ...change, state: "waiting", statement: "alter table a\n  drop column c", error: "view v depends on it" },
    { ...change, state: "deferred", statement: "create index i on a (d)" },
  ] as const; // prettier-ignore
  const lines = text({ schemaChanges }).split("\n");
  expect(lines.filter((line) => /schema of|^ {4}/.test(line))).toEqual([
    "schema of public.a: waits for 1 min, and nothing is applied until then: view v depends on it",
    "    alter table a",
    "      drop column c",
    "schema of public.a: to be done outside of a batch, for 1 min",
    "    create index i on a (d)",
    "schema of public.a: applied 30 s ago in 0.5 s",
    "    alter table a drop column b",
  ]);
});
