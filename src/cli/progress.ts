/** Tells the library's events: as progress that is drawn again and again, as lines, or as JSON. */
import type { Batch, SyncEvent } from "../index.ts";
import { bar, bytes, columns, count, duration, number, percent } from "./format.ts";
import type { Output } from "./output.ts";

type CopyProgress = Extract<SyncEvent, { type: "copy-progress" }>;

/** How many tables and indexes the block on a terminal shows at most. */
const mostLines = 8;

export class Progress {
  readonly #output: Output;
  /** Whether every event becomes a line of JSON on stdout. */
  readonly #isLines: boolean;
  #appliedRows = 0;
  #isRaising = false;

  constructor(output: Output, isLines: boolean) {
    this.#output = output;
    this.#isLines = isLines;
  }

  /** Batches come through `follow` itself; here they would be told twice. */
  readonly onEvent = (event: SyncEvent): void => {
    if (event.type === "batch-applied") return;
    if (this.#isLines) this.#output.line(event);
    this.#tell(event);
  };

  /** A switch keeps applications from writing, or is about to. */
  get mayBeFenced(): boolean {
    return this.#isRaising;
  }

  batch(batch: Batch): void {
    if (this.#isLines) this.#output.line({ type: "batch-applied", batch });
    this.#appliedRows += batch.rows;
    const text = (): string =>
      `following: batch ${number(batch.number)}, ${count(this.#appliedRows, "row")} applied, ` +
      `lag ${duration(batch.lagSeconds)}`;
    this.#output.progress(() => [text()], text);
  }

  #tell(event: SyncEvent): void {
    const output = this.#output;
    if (event.type === "copy-progress") {
      output.progress(
        () => copyBlock(event),
        () => copyLine(event),
      );
    } else if (event.type === "verify-progress") {
      const text = (): string =>
        `comparing: ${event.tablesDone} of ${count(event.tablesTotal, "table")} done, ` +
        `${event.table} (${count(event.rowsDone, "row")})`;
      output.progress(() => [text()], text);
    } else if (event.type === "fence") {
      // The steps say it in words.
      this.#isRaising = event.state === "raising";
    } else if (event.type === "copy-finished") {
      // The command's result says the same.
      output.endProgress();
    } else {
      const { level, text } = describe(event);
      output.log[level]({}, text);
    }
  }
}

/** The sentence for an event that happens once. */
function describe(
  event: Exclude<SyncEvent, { type: "copy-progress" | "copy-finished" | "verify-progress" | "fence" }>,
): {
  readonly level: "info" | "warn";
  readonly text: string;
} {
  const info = (text: string) => ({ level: "info", text }) as const;
  const warn = (text: string) => ({ level: "warn", text }) as const;
  switch (event.type) {
    case "capture-installed":
      return info(`changes of ${event.table} are recorded from now on`);
    case "capture-waiting":
      return warn(`${event.table} is held by ${event.blockedBy}; trying again (attempt ${event.attempt})`);
    case "copy-planned":
      return info(
        `to copy: ${count(event.tables, "table")} in ${count(event.parts, "part")}, ${bytes(event.bytes)}`,
      );
    case "table-copied":
      return info(`copied ${event.table}: ${count(event.rows, "row")}, ${bytes(event.bytes)}`);
    case "table-restarted":
      return warn(`${event.table} is copied again from its start: ${event.reason}`);
    case "index-built":
      return info(`built ${event.index} on ${event.table} in ${duration(event.seconds)}`);
    case "constraint-left-invalid":
      return warn(`the constraint ${event.constraint} on ${event.table} stays NOT VALID: ${event.reason}`);
    case "batch-applied":
      return info(`applied batch ${event.batch.number}: ${count(event.batch.rows, "row")}`);
    case "caught-up":
      return info("caught up: the target equals the source as of now");
    case "constraint-validated":
      return info(`the constraint ${event.constraint} on ${event.table} is validated`);
    case "table-reread":
      return warn(`${event.table} is read again as a whole: ${event.reason}`);
    case "reload-held":
      return warn(
        `${event.table} has changed and waits for the cutover: it has no key and ${bytes(event.bytes)}, more than keylessLimit (${bytes(event.limitBytes)})`,
      );
    case "deltas-held":
      return warn(
        `sync ${event.sync} has not taken anything since ${event.since}: it holds ${bytes(event.bytes)} of changes on the source, more than deltaLimit (${bytes(event.limitBytes)})`,
      );
    case "schema-change-applied":
      return info(`${event.table}: schema change applied in ${duration(event.seconds)}: ${event.statement}`);
    case "schema-change-waiting":
      return warn(
        `${event.table}: the target does not take a schema change, and nothing is applied until it does (${event.reason}): ${event.statement}`,
      );
    case "rows-parked":
      return warn(
        `${event.table}: the target rejects ${count(event.rows, "row")}, which ${event.rows === 1 ? "is" : "are"} parked (\`replicate parked\`): ${JSON.stringify(event.key)}: ${event.message}`,
      );
    case "parked-rows-settled":
      return info(
        `${event.table}: ${count(event.rows, "row")} that had been parked ${event.rows === 1 ? "is" : "are"} settled`,
      );
    case "table-not-replicated":
      return warn(
        `${event.table} on the ${event.side} is not replicated: it was created after \`replicate init\`; take it in with \`replicate init\` and \`replicate copy\`, or leave it out with --exclude-tables`,
      );
    case "partition-adopted":
      return info(`the new partition ${event.partition} of ${event.table} is replicated from now on`);
    case "connection-lost":
      return warn(
        `the ${event.side} does not work now: ${event.message}; trying again in ${duration(event.retryInMs / 1000)}`,
      );
    case "connection-restored":
      return info(`the ${event.side} is back`);
    case "asked-to-end":
      return info(`\`${event.by}\` asks to end: nothing is followed any more`);
    case "standing-by":
      return info(`standing by: takes over when the runner ends (${event.runner})`);
    case "taken-over":
      return info("took over: following from here on");
    case "switch-step":
      return info(event.step);
    case "hook-said":
      return info(`on-open: ${event.line}`);
    case "object-removed":
      return info(`removed from the ${event.side}: ${event.object}`);
    case "warning":
      return warn(event.message);
  }
}

function copyLine(event: CopyProgress): string {
  const { bytesDone, bytesTotal, indexesDone, indexesTotal } = event;
  return [
    `copying: ${percent(bytesDone, bytesTotal)} %`,
    `${bytes(bytesDone)} of ${bytes(bytesTotal)}`,
    count(event.rowsDone, "row"),
    ...(event.bytesPerSecond > 0 ? [`${bytes(event.bytesPerSecond)}/s`] : []),
    ...(indexesTotal > 0 ? [`indexes ${indexesDone} of ${indexesTotal}`] : []),
    ...event.building.slice(0, 1).map(buildText),
    ...(etaText(event) === "" ? [] : [etaText(event)]),
  ].join(", ");
}

function copyBlock(event: CopyProgress): string[] {
  const { bytesDone, bytesTotal, tables, building } = event;
  const rate = event.bytesPerSecond > 0 ? `  ${bytes(event.bytesPerSecond)}/s` : "";
  const eta = etaText(event) === "" ? "" : `  ${etaText(event)}`;
  const head =
    `copying ${bar(bytesDone, bytesTotal, 24)} ${percent(bytesDone, bytesTotal)} %  ` +
    `${bytes(bytesDone)} of ${bytes(bytesTotal)}  ${count(event.rowsDone, "row")}${rate}${eta}`;
  const rows = columns(
    tables
      .slice(0, mostLines)
      .map((table) => [
        `  ${table.table}`,
        bar(table.bytesDone, table.bytesTotal, 12),
        `${percent(table.bytesDone, table.bytesTotal)} %`,
        `${bytes(table.bytesDone)} of ${bytes(table.bytesTotal)}`,
        count(table.rowsDone, "row"),
      ]),
    [2],
  );
  const hidden = tables.length > mostLines ? [`  and ${count(tables.length - mostLines, "more table")}`] : [];
  const indexes =
    event.indexesTotal === 0
      ? []
      : [
          `indexes ${bar(event.indexesDone, event.indexesTotal, 24)} ${event.indexesDone} of ${event.indexesTotal}`,
        ];
  return [
    head,
    ...rows,
    ...hidden,
    ...indexes,
    ...building.slice(0, mostLines).map((each) => `  ${buildText(each)}`),
  ];
}

function etaText({ etaSeconds }: CopyProgress): string {
  return etaSeconds === null || etaSeconds < 1 ? "" : `about ${duration(etaSeconds)} left`;
}

function buildText(build: CopyProgress["building"][number]): string {
  return `${build.index}: ${build.phase}${build.percent === null ? "" : ` ${Math.floor(build.percent)} %`}`;
}
