/** Tells the library's events: as progress that is drawn again and again, as lines, or as JSON. */
import type { Batch, SyncEvent } from "../index.ts";
import { describe } from "../text/events.ts";
import { bar, bytes, columns, count, duration, number, percent } from "../text/format.ts";
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
