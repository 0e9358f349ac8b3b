/** The status for people who were woken up by it. */
import { placeText, type Status } from "../index.ts";
import { leftInvalidLines } from "./findings.ts";
import { bytes, columns, count, duration, number, percent } from "../text/format.ts";
import { isFallingBehind, leastLagSeconds, leastTrend, nextStep, phaseText } from "../text/phases.ts";

/** A runner tells every two seconds that it is alive. */
const silentSeconds = 30;
/** How many tables are listed at most. */
const mostTables = 20;

export function statusLines(status: Status, now: Date): string[] {
  const { copy, follow, lag } = status;
  const name = status.sync === "default" ? "" : ` --name ${status.sync}`;
  const away = status.sourceError === null ? "" : `: ${status.sourceError}`;
  // The side that changes are applied to: the old source once the sync is cut over.
  const receiver = status.owed.side;
  const rows: (readonly [string, string])[] = [
    ["source", `${placeText(status.source)}${away}`],
    ["target", placeText(status.target)],
    ["runner", runnerText(status, now)],
  ];
  if (status.phase === "copying" || status.phase === "initialised") rows.push(["copy", copyText(status)]);
  else if (status.phase !== "cut-over")
    rows.push([
      "copied",
      `${copy.tablesDone} of ${count(copy.tablesTotal, "table")}, ${count(copy.rowsDone, "row")}`,
    ]);
  if (follow.batches > 0) {
    const rate = follow.rowsPerSecond > 0 ? `, ${number(follow.rowsPerSecond)} rows/s now` : "";
    const last = follow.lastBatchAt === null ? "" : `, the last one ${ago(follow.lastBatchAt, now)}`;
    rows.push([
      "applied",
      `${count(follow.rowsApplied, "row")} in ${count(follow.batches, "batch", "batches")}${last}${rate}`,
    ]);
  }
  if (status.runner.batch !== null) rows.push(["batch", batchText(status.runner.batch, now)]);
  if (status.phase !== "new") rows.push(["lag", lagText(lag, receiver)]);
  if (status.back !== null) rows.push(["two-way", backText(status.back)]);
  for (const wait of status.waits) rows.push(["waits", waitText(wait)]);
  if (status.phase !== "copying" && status.owed.open > 0) {
    rows.push([
      "deferred",
      `${count(status.owed.open, "index, constraint or trigger", "indexes, constraints and triggers")} of the ${receiver} ${receiver === "target" ? "to be restored" : "are away while it is kept current: they come back with a rollback, or at the end"}`,
    ]);
  }
  rows.push(...switchRows(status, now));
  for (const held of status.held) rows.push(["retained", retainedText(held, status.sync, now)]);
  if (status.conflicts > 0)
    rows.push([
      "conflicts",
      `${number(status.conflicts)} to be resolved: replicate conflicts --pending${name}`,
    ]);
  if (status.parked > 0)
    rows.push([
      "parked",
      `${count(status.parked, "row")} that the ${receiver} rejects: replicate parked${name}`,
    ]);
  const next = nextStep(status, name);
  return [
    `${status.sync}: ${status.phase} - ${phaseText(status)}`,
    ...columns(rows.map(([label, text]) => [`  ${label}`, text])),
    ...leftInvalidLines(status.owed.leftInvalid),
    ...errorLines(status, now),
    ...maintenanceLines(status, now),
    ...tableLines(status),
    ...reloadLines(status, now),
    ...schemaLines(status, now),
    ...newcomerLines(status, name),
    ...(next === undefined ? [] : ["", `next: ${next}`]),
  ];
}

/** How many schema changes that are done are listed. */
const mostChanges = 5;

function schemaLines({ schemaChanges }: Status, now: Date): string[] {
  const open = schemaChanges.filter(({ state }) => state !== "applied");
  const done = schemaChanges.filter(({ state }) => state === "applied").slice(0, mostChanges);
  return [...open, ...done].flatMap(({ table, statement, state, noticedAt, appliedAt, seconds, error }) => {
    const since = age(noticedAt, now);
    const text = {
      waiting: `waits for ${since}, and nothing is applied until then: ${error ?? ""}`,
      deferred: `to be done outside of a batch, for ${since}${error === null ? "" : `: ${error}`}`,
      applied: `applied ${ago(appliedAt ?? noticedAt, now)} in ${duration(seconds ?? 0)}`,
    }[state];
    return [`schema of ${table}: ${text}`, ...statement.split("\n").map((line) => `    ${line}`)];
  });
}

function runnerText({ runner }: Status, now: Date): string {
  const where = runner.host === null ? "" : ` on ${runner.host}, pid ${runner.pid}`;
  if (runner.alive) {
    const silence = runner.seenAt === null ? 0 : (now.getTime() - new Date(runner.seenAt).getTime()) / 1000;
    const since = runner.since === null ? "" : `, for ${age(runner.since, now)}`;
    return `alive${where}${since}${silence > silentSeconds ? `, but no sign of life for ${duration(silence)}` : ""}`;
  }
  return runner.host === null ? "none so far" : `none; the last one ran${where}`;
}

function copyText({ copy }: Status): string {
  const { bytesDone, bytesTotal, indexesDone, indexesTotal, etaSeconds } = copy;
  return [
    `${copy.tablesDone} of ${count(copy.tablesTotal, "table")}`,
    ...(bytesTotal > 0
      ? [
          `${bytes(bytesDone)} of ${bytes(bytesTotal)} (${percent(bytesDone, bytesTotal)} %)`,
          count(copy.rowsDone, "row"),
        ]
      : []),
    ...(indexesTotal > 0 ? [`indexes ${indexesDone} of ${indexesTotal}`] : []),
    ...(etaSeconds === null ? [] : [`about ${duration(etaSeconds)} left`]),
  ].join(", ");
}

/** The other way of a two-way sync. */
function backText({ lag, follow }: NonNullable<Status["back"]>): string {
  const applied = follow.batches === 0 ? "nothing yet" : count(follow.rowsApplied, "row");
  return `${applied} from the target to the source; lag ${lagText(lag)}`;
}

function lagText(lag: Status["lag"], receiver: Status["owed"]["side"] = "target"): string {
  const blocked = lag.blockedBy === null ? "" : `; held up by ${lag.blockedBy}`;
  if (lag.rows === null)
    return `unknown, because the ${receiver === "target" ? "source" : "target"} cannot be asked${blocked}`;
  if (lag.rows === 0) return `none${blocked}`;
  const age = lag.seconds === null ? "" : `${duration(lag.seconds)}, `;
  return `${age}${count(lag.rows, "change")} waiting${trendText(lag)}${blocked}`;
}

function trendText(lag: Status["lag"]): string {
  const { seconds, trend } = lag;
  if (seconds === null || trend === null) return "";
  if (seconds <= leastLagSeconds || Math.abs(trend) <= leastTrend) return "";
  return isFallingBehind(lag)
    ? `; falling behind by ${duration(trend * 60)} a minute`
    : `; none left in about ${duration(seconds / -trend)}`;
}

function batchText({ since, changes, rows }: NonNullable<Status["runner"]["batch"]>, now: Date): string {
  const seconds = (now.getTime() - new Date(since).getTime()) / 1000;
  const left = rows > 0 ? Math.max(0, ((changes - rows) * seconds) / rows) : null;
  const rest =
    rows === 0
      ? "looking for the rows"
      : `${count(rows, "row")} read${left === null || rows >= changes ? ", being written" : `, the rest in ${duration(left)} at most`}`;
  return `${count(changes, "change")} at once, begun ${duration(seconds)} ago: ${rest}`;
}

function waitText({ side, session, what, seconds, blockedBy }: Status["waits"][number]): string {
  const since = seconds === null ? "" : ` for ${duration(seconds)}`;
  const holder = blockedBy === null ? "nobody to be seen" : blockedBy;
  return `${session} waits${since} on the ${side} for a lock on ${what}; held by ${holder}`;
}

function retainedText(held: Status["held"][number], own: string, now: Date): string {
  const who = held.sync === own ? "this sync" : `sync ${held.sync}`;
  const size = `${bytes(held.bytes)} of changes${held.isOver ? ", more than deltaLimit" : ""}`;
  const way = held.isOver && held.sync !== own ? `; give it up: ${held.giveUp}` : "";
  return `${who} has taken nothing for ${age(held.since, now)}, and makes the source retain ${size}${way}`;
}

function maintenanceLines({ upkeep }: Status, now: Date): string[] {
  if (upkeep === null) return [];
  return [
    `  maintenance is put off, first ${ago(upkeep.since, now)}:`,
    `    ${upkeep.message}`,
    `    what to do: ${upkeep.hint}`,
  ];
}

function errorLines({ lastError }: Status, now: Date): string[] {
  if (lastError === null) return [];
  return [
    "",
    `  last error, ${ago(lastError.at, now)}, ${lastError.cleared ? "over since" : "not over yet"}:`,
    `    ${lastError.code}: ${lastError.message}`,
    ...(lastError.cleared
      ? []
      : [
          `    what to do: ${lastError.hint.includes("\n") ? `\n${lastError.hint}`.replaceAll("\n", "\n      ") : lastError.hint}`,
        ]),
  ];
}

/** Only tables that are not simply following: those are what one looks for. */
function tableLines({ tables }: Status): string[] {
  const shown = tables.filter(
    ({ state, pending, reload }) => state !== "following" || ((pending ?? 0) > 0 && reload === null),
  );
  if (shown.length === 0) return [];
  const quiet = tables.length - shown.length - tables.filter(({ reload }) => reload !== null).length;
  const hidden = shown.length - mostTables;
  return [
    "",
    ...columns(
      [
        ["  table", "state", "rows", "size", "waiting"],
        ...shown
          .slice(0, mostTables)
          .map(({ source, target, state, rows, bytes: size, pending }) => [
            `  ${source}${source === target ? "" : ` -> ${target}`}`,
            state,
            number(rows),
            bytes(size),
            pending === null ? "?" : number(pending),
          ]),
      ],
      [2, 3, 4],
    ),
    ...(hidden > 0 ? [`  and ${count(hidden, "more", "more")}; --json lists all`] : []),
    ...(quiet > 0 ? [`  ${count(quiet, "other table")} following with nothing waiting`] : []),
  ];
}

/** Tables without a key that the target does not have as they are. */
function reloadLines({ tables }: Status, now: Date): string[] {
  const waiting = tables.filter(({ reload }) => reload !== null);
  if (waiting.length === 0) return [];
  return [
    "",
    ...waiting.slice(0, mostTables).map(({ source, reload, lastChangeAt }) => {
      const what = reload?.isHeld ? "waits for the cutover" : "is read again soon";
      const changed = ago(lastChangeAt ?? reload?.since ?? now, now);
      return `  table ${source}: ${what}, ${bytes(reload?.bytes ?? 0)}, changed ${changed}; it has no key`;
    }),
    ...(waiting.some(({ reload }) => reload?.isHeld)
      ? ["  before that only `replicate follow --until-caught-up` reads them again"]
      : []),
  ];
}

/** Tables that an application has created since, and nobody replicates. */
function newcomerLines({ notReplicated, notReplicatedReasons, phase }: Status, name: string): string[] {
  if (notReplicated.length === 0) return [];
  const hidden = notReplicated.length - mostTables;
  return [
    "",
    `  not replicated, as created after init: ${notReplicated.slice(0, mostTables).join(", ")}${hidden > 0 ? ` and ${count(hidden, "more", "more")}` : ""}`,
    ...notReplicated
      .slice(0, mostTables)
      .flatMap((table) =>
        notReplicatedReasons[table] === undefined ? [] : [`    ${table}: ${notReplicatedReasons[table]}`],
      ),
    phase === "cut-over"
      ? "    a rollback would lose them"
      : `    take them in: replicate init${name}, then replicate copy${name}; or leave them out: --exclude-tables at init`,
  ];
}

/** The switch in words: whether it goes on, and what keeps applications from writing. */
function switchRows(status: Status, now: Date): (readonly [string, string])[] {
  const { switch: known, fence } = status;
  if (known === null) return [];
  const isOpen = known.step === "open";
  const state = known.isRunning
    ? "under way"
    : isOpen
      ? "done"
      : known.step === "opening"
        ? "interrupted: the new side is open, the rest is left to do"
        : "interrupted before the new side was open";
  const since = known.openedAt ?? known.startedAt;
  const rows: (readonly [string, string])[] = [[known.way, `${state}, ${ago(since, now)}`]];
  if (fence !== null)
    rows.push(["fence", `the ${fence.side} refuses writes of applications since ${age(fence.since, now)}`]);
  return rows;
}

function age(at: string | Date, now: Date): string {
  return duration(Math.max(0, (now.getTime() - new Date(at).getTime()) / 1000));
}

function ago(at: string | Date, now: Date): string {
  return `${age(at, now)} ago`;
}
