/** Metrics for Prometheus: one set per process, labelled by sync. Labels have few values: no table, no row, no text. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import type { Feed } from "./feed.ts";
import type { SyncView } from "./protocol.ts";

const phases = [
  "new", "initialised", "copying", "copied", "catching-up", "following", "fenced", "cut-over", "failed",
] as const; // prettier-ignore

type Read = (view: SyncView) => number | null | undefined;

/** Name without the prefix, what it says, and where it comes from. */
const gauges: readonly (readonly [name: string, help: string, read: Read])[] = [
  ["up", "1 if the last look at the sync was answered", (view) => (view.statusError === null ? 1 : 0)],
  ["lag_seconds", "age of the oldest change that is not applied", ({ status }) => status?.lag.seconds],
  ["lag_changes", "changes recorded on the source that are not applied", ({ status }) => status?.lag.rows],
  ["runner_alive", "1 if a process follows the sync", ({ status }) => (status?.runner.alive ? 1 : 0)],
  ["batches", "batches applied over the life of the sync", ({ status }) => status?.follow.batches],
  ["rows_applied", "rows applied over the life of the sync", ({ status }) => status?.follow.rowsApplied],
  ["rows_per_second", "rows applied each second now", ({ status }) => status?.follow.rowsPerSecond],
  ["copy_bytes_done", "bytes of the copy that are on the target", ({ status }) => status?.copy.bytesDone],
  ["copy_bytes", "bytes to be copied", ({ status }) => status?.copy.bytesTotal],
  ["copy_rows_done", "rows copied", ({ status }) => status?.copy.rowsDone],
  ["copy_tables_done", "tables copied", ({ status }) => status?.copy.tablesDone],
  ["copy_tables", "tables to be copied", ({ status }) => status?.copy.tablesTotal],
  ["copy_indexes_done", "indexes and constraints restored", ({ status }) => status?.copy.indexesDone],
  ["copy_indexes", "indexes and constraints to be restored", ({ status }) => status?.copy.indexesTotal],
  ["retained_bytes", "bytes of changes that silent syncs keep on the source", ({ status }) => status?.held.reduce((sum, { bytes }) => sum + bytes, 0)],
  ["conflicts_pending", "conflicts that wait to be resolved", ({ status }) => status?.conflicts],
  ["rows_parked", "rows that the target rejects", ({ status }) => status?.parked],
  ["tables_not_replicated", "tables that were created after init and are not replicated", ({ status }) => status?.notReplicated.length],
  ["lock_waits", "sessions of ours that wait for a lock", ({ status }) => status?.waits.length],
  ["failed", "1 while the last error is not over", ({ status }) => (status?.lastError != null && !status.lastError.cleared ? 1 : 0)],
  ["fenced", "1 while a side refuses writes of applications", ({ status }) => (status?.fence == null ? 0 : 1)],
  ["verified_equal", "1 if the last verify in this process found both sides equal", ({ verified }) => (verified === null ? null : verified.report.equal ? 1 : 0)],
]; // prettier-ignore

export class Metrics {
  readonly #registry = new Registry();
  readonly #feeds: readonly Feed[];
  readonly #gauges: readonly { readonly gauge: Gauge; readonly read: Read }[];
  readonly #phase: Gauge;

  constructor(feeds: readonly Feed[], version: string) {
    this.#feeds = feeds;
    const registers = [this.#registry];
    const labelNames = ["sync"];
    this.#gauges = gauges.map(([name, help, read]) => ({
      gauge: new Gauge({ name: `replicate_${name}`, help, labelNames, registers }),
      read,
    }));
    this.#phase = new Gauge({
      name: "replicate_phase",
      help: "1 for the phase that the sync is in",
      labelNames: ["sync", "phase"],
      registers,
    });
    new Gauge({
      name: "replicate_build_info",
      help: "the version of this program",
      labelNames: ["version"],
      registers,
    }).set({ version }, 1);
    const seconds = new Histogram({
      name: "replicate_batch_seconds",
      help: "seconds from the start of reading a batch to its commit, of batches applied by this process",
      labelNames,
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300],
      registers,
    });
    const rows = new Counter({
      name: "replicate_batch_rows_total",
      help: "rows applied by this process",
      labelNames,
      registers,
    });
    for (const feed of feeds)
      feed.onBatch((batch) => {
        seconds.observe({ sync: feed.name }, batch.seconds);
        rows.inc({ sync: feed.name }, batch.rows);
      });
  }

  /** In the text format of Prometheus. What is not known is left out. */
  async text(): Promise<{ readonly type: string; readonly body: string }> {
    for (const { gauge, read } of this.#gauges) {
      gauge.reset();
      for (const { view } of this.#feeds) {
        const value = read(view);
        if (value != null) gauge.set({ sync: view.name }, value);
      }
    }
    this.#phase.reset();
    for (const { view } of this.#feeds)
      for (const phase of phases)
        this.#phase.set({ sync: view.name, phase }, view.status?.phase === phase ? 1 : 0);
    return { type: this.#registry.contentType, body: await this.#registry.metrics() };
  }
}
