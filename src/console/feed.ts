/**
 * What the console shows of one sync: its status, asked for again and again, and the events of what runs in this process.
 * Whoever subscribes is told of changes alone. Bounded in memory however long it runs.
 */
import {
  ReplicateError,
  type Batch,
  type OnEvent,
  type Status,
  type Sync,
  type SyncEvent,
} from "../index.ts";
import { describe } from "../text/events.ts";
import { nextStep, phaseText } from "../text/phases.ts";
import {
  applyPatch,
  type LogLine,
  type Sample,
  type SyncPatch,
  type SyncView,
  type TableStatus,
} from "./protocol.ts";

export interface FeedOptions {
  /** Milliseconds between two looks while somebody watches, and while nobody does. */
  readonly watchedMs?: number;
  readonly unwatchedMs?: number;
}

/** Progress is passed on twice a second at most. */
const progressMs = 500;
/** How long a request may wait for a fresh answer of the databases. */
const refreshMs = 5000;

export class Feed {
  readonly #sync: Pick<Sync, "name" | "status">;
  readonly #watchedMs: number;
  readonly #unwatchedMs: number;
  readonly #subscribers = new Set<(patch: SyncPatch) => void>();
  readonly #batchListeners = new Set<(batch: Batch) => void>();
  readonly #lookListeners = new Set<() => void>();
  #view: SyncView;
  #logged = 0;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isClosed = false;
  #progressAt = 0;
  readonly #abort = new AbortController();

  constructor(
    sync: Pick<Sync, "name" | "status">,
    { watchedMs = 1000, unwatchedMs = 10_000 }: FeedOptions = {},
  ) {
    this.#sync = sync;
    this.#watchedMs = watchedMs;
    this.#unwatchedMs = unwatchedMs;
    this.#view = {
      name: sync.name,
      status: null,
      phaseText: null,
      next: null,
      statusAt: null,
      statusError: null,
      tables: [],
      copy: null,
      verifying: null,
      log: [],
      history: [],
      job: null,
      actions: [],
      findings: null,
      verified: null,
      rehearsed: null,
    };
  }

  get name(): string {
    return this.#view.name;
  }

  get view(): SyncView {
    return this.#view;
  }

  /** Begins to look. */
  start(): void {
    void this.#lookAgain();
  }

  /** Ends the looks, and waits for the one that is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#abort.abort();
    await this.#looking;
    this.#subscribers.clear();
  }

  /** Calls back with each change until the returned function is called. */
  subscribe(listener: (patch: SyncPatch) => void): () => void {
    this.#subscribers.add(listener);
    // Who begins to watch wants to see the present, not what it was ten seconds ago.
    if (this.#subscribers.size === 1) void this.#lookAgain();
    return () => {
      this.#subscribers.delete(listener);
    };
  }

  onBatch(listener: (batch: Batch) => void): void {
    this.#batchListeners.add(listener);
  }

  /** Calls back after each look, whatever it found. */
  onLook(listener: () => void): void {
    this.#lookListeners.add(listener);
  }

  /** Makes sure, for those who ask now and then, that what is shown is of this moment; waits a few seconds for it at most. */
  async refresh(): Promise<void> {
    const age = Date.now() - Date.parse(this.#view.statusAt ?? "1970-01-01");
    if (age < 2 * this.#watchedMs) return;
    const patience = AbortSignal.timeout(refreshMs);
    await Promise.race([
      this.#lookAgain(),
      new Promise((resolve) => patience.addEventListener("abort", resolve, { once: true })),
    ]);
  }

  /** Looks now, or waits for the look that is under way. */
  async look(): Promise<void> {
    await this.#lookAgain();
  }

  /** Changes what is shown, and tells it to all who watch. */
  patch(patch: Omit<SyncPatch, "name">): void {
    const whole: SyncPatch = { name: this.name, ...patch };
    this.#view = applyPatch(this.#view, whole);
    for (const listener of this.#subscribers) listener(whole);
  }

  say(level: LogLine["level"], text: string): void {
    this.#logged++;
    this.patch({ log: [{ id: this.#logged, at: new Date().toISOString(), level, text }] });
  }

  /** Hears the events of what runs in this process. */
  readonly onEvent: OnEvent = (event) => {
    if (event.type === "copy-progress") {
      if (this.#isTime(event)) this.patch({ copy: event });
    } else if (event.type === "verify-progress") {
      if (this.#isTime(event)) this.patch({ verifying: event });
    } else if (event.type === "batch-applied") {
      for (const listener of this.#batchListeners) listener(event.batch);
    } else if (event.type === "copy-finished") {
      this.patch({ copy: null });
      this.say("info", `the copy is done: ${event.rows} rows in ${Math.round(event.seconds)} s`);
    } else if (event.type === "fence") {
      this.say(event.state === "raising" ? "warn" : "info", fenceText[event.state]);
    } else {
      const { level, text } = describe(event);
      this.say(level, text);
    }
  };

  #isTime(event: SyncEvent): boolean {
    const now = Date.now();
    if (now - this.#progressAt < progressMs && !isLast(event)) return false;
    this.#progressAt = now;
    return true;
  }

  async #lookAgain(): Promise<void> {
    clearTimeout(this.#timer);
    if (this.#isClosed) return;
    if (this.#looking !== undefined) return await this.#looking;
    this.#looking = this.#look();
    await this.#looking;
    this.#looking = undefined;
    if (this.#isClosed) return;
    for (const listener of this.#lookListeners) listener();
    const pause = this.#subscribers.size > 0 ? this.#watchedMs : this.#unwatchedMs;
    this.#timer = setTimeout(() => void this.#lookAgain(), pause);
    this.#timer.unref();
  }

  /** Asks the sync where it stands. Never throws: why it cannot be asked is part of what is shown. */
  async #look(): Promise<void> {
    try {
      const { tables, ...status } = await this.#sync.status({
        signal: AbortSignal.any([this.#abort.signal, AbortSignal.timeout(30_000)]),
      });
      const name = status.sync === "default" ? "" : ` --name ${status.sync}`;
      const whole: Status = { ...status, tables };
      this.patch({
        status,
        phaseText: phaseText(whole),
        next: nextStep(whole, name) ?? null,
        statusAt: new Date().toISOString(),
        statusError: null,
        ...this.#changed(tables),
        history: [this.#sample(whole)],
        ...(whole.phase === "copying" ? {} : { copy: null }),
      });
    } catch (error) {
      if (this.#isClosed) return;
      const known =
        error instanceof ReplicateError
          ? error
          : new ReplicateError("INTERNAL", String(error), { cause: error });
      // A sync that is not set up yet is no trouble.
      const { code, message, hint } = known;
      const isGone = code === "SYNC_UNKNOWN";
      this.patch({
        statusError: { code, message, hint: hint ?? "" },
        statusAt: new Date().toISOString(),
        ...(isGone ? { status: null, phaseText: null, next: null, ...this.#changed([]) } : {}),
      });
    }
  }

  #changed(tables: readonly TableStatus[]): { tables: TableStatus[]; tablesGone: string[] } {
    const before = new Map(this.#view.tables.map((table) => [table.source, JSON.stringify(table)]));
    const names = new Set(tables.map(({ source }) => source));
    return {
      tables: tables.filter((table) => before.get(table.source) !== JSON.stringify(table)),
      tablesGone: [...before.keys()].filter((name) => !names.has(name)),
    };
  }

  #sample({ lag, follow }: Status): Sample {
    return {
      at: Date.now(),
      lagSeconds: lag.seconds,
      lagChanges: lag.rows,
      rowsPerSecond: follow.rowsPerSecond,
      bytesPerSecond: this.#view.copy?.bytesPerSecond ?? 0,
    };
  }
}

const fenceText = {
  raising: "applications are about to be kept from writing",
  lifted: "applications can write to the old side again",
  open: "applications can write to the new side",
} as const;

function isLast(event: SyncEvent): boolean {
  return event.type === "verify-progress" && event.tablesDone === event.tablesTotal;
}
