/**
 * Runs a sync on behalf of the console: copies and follows by itself, and does what is asked for in the page. All that has to
 * last is in the databases: an engine that is killed and started again, here or elsewhere, asks where the sync stands and
 * goes on from there. Two at a time do no harm: the second one stands by.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { ReplicateError, type Status, type Sync } from "../index.ts";
import { isAction, type ActionName } from "./action-list.ts";
import type { Feed } from "./feed.ts";
import type { Job } from "./protocol.ts";

/** Milliseconds after which what failed is tried again. */
const retryMs = 30_000;

interface Running {
  readonly controller: AbortController;
  readonly ended: Promise<void>;
}

export class Engine implements AsyncDisposable {
  readonly #sync: Sync;
  readonly #feed: Feed;
  /** Copying and following, which go on until they are stopped. */
  #running: Running | undefined;
  #job: Promise<void> | undefined;
  /** Whether an action fits is being looked at: two that come at once must not both begin. */
  #isDeciding = false;
  readonly #ending = new AbortController();

  constructor(sync: Sync, feed: Feed) {
    this.#sync = sync;
    this.#feed = feed;
    feed.onLook(() => this.#offer());
  }

  /** Goes on with a sync that is set up already. */
  async start(): Promise<void> {
    const status = await this.#status();
    if (status !== null) this.#run("the program");
    this.#offer();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort();
    await this.#halt();
    await this.#job;
  }

  /** Begins an action. Throws USAGE_INVALID where it does not fit what goes on. */
  readonly act = async (action: string, by: string): Promise<void> => {
    if (!isAction(action))
      throw new ReplicateError("USAGE_INVALID", `there is no action ${JSON.stringify(action)}`);
    if (this.#job !== undefined || this.#isDeciding)
      throw new ReplicateError("USAGE_INVALID", "another action is under way", { hint: "Wait for its end." });
    this.#isDeciding = true;
    try {
      await this.#begin(action, by);
    } finally {
      this.#isDeciding = false;
    }
  };

  async #begin(action: ActionName, by: string): Promise<void> {
    const status = await this.#status();
    if (!actionsFor(status, this.#running !== undefined).includes(action))
      throw new ReplicateError("USAGE_INVALID", `${action} does not fit phase ${status?.phase ?? "new"}`, {
        hint: "The page shows what can be done now.",
      });
    this.#feed.say("info", `${action}, asked for by ${by}`);
    const begun: Job = {
      action,
      by,
      startedAt: new Date().toISOString(),
      endedAt: null,
      result: null,
      error: null,
    };
    this.#feed.patch({ job: begun });
    this.#job = this.#work(begun, action, status);
    this.#offer();
  }

  async #work(begun: Job, action: ActionName, status: Status | null): Promise<void> {
    const end = (how: Partial<Job>): void =>
      this.#feed.patch({ job: { ...begun, endedAt: new Date().toISOString(), ...how } });
    try {
      end({ result: await this.#do(action, status, begun.by) });
    } catch (error) {
      end({ error: this.#tell(error) });
    }
    this.#job = undefined;
    await this.#feed.look();
    this.#offer();
  }

  async #do(action: ActionName, status: Status | null, by: string): Promise<string> {
    const { signal } = this.#ending;
    switch (action) {
      case "preflight": {
        const { findings, ok } = await this.#sync.preflight({ signal });
        this.#feed.patch({ findings });
        return ok ? "nothing stands in the way" : "something is blocking";
      }
      case "schema": {
        await this.#sync.schema({ signal });
        return "the schema is on the target";
      }
      case "start":
        await this.#sync.init({ signal });
        this.#run(by);
        return "changes are recorded; the rows are being copied";
      case "pause":
        await this.#halt();
        return "paused";
      case "resume":
        this.#run(by);
        return "goes on";
      case "verify":
      case "repair": {
        this.#feed.patch({ verified: null });
        const report = await this.#sync.verify({ repair: action === "repair", signal });
        this.#feed.patch({ verified: { at: new Date().toISOString(), report }, verifying: null });
        return report.equal ? "equal" : "different";
      }
      case "rehearse": {
        const isBack = status?.phase === "cut-over";
        const { rehearsal } = isBack
          ? await this.#sync.rollback({ rehearse: true, signal })
          : await this.#sync.cutover({ rehearse: true, signal });
        if (rehearsal !== null) this.#feed.patch({ rehearsed: { at: new Date().toISOString(), rehearsal } });
        return rehearsal?.blockers.length === 0 ? "ready" : "blocked";
      }
      case "cutover":
      case "rollback": {
        const { fenceSeconds, primary } = await this.#sync[action]({ signal });
        this.#run(by);
        return `applications write to the ${primary}${fenceSeconds === null ? "" : `; nobody could write for ${fenceSeconds.toFixed(1)} s`}`;
      }
      case "undo":
        await this.#sync[status?.switch?.way ?? "cutover"]({ undo: true, signal });
        return "the old side is open again";
      case "finish":
        await this.#halt();
        await this.#sync.cutover({ finish: true, signal });
        return "finished";
      case "abort": {
        await this.#halt();
        const { removed } = await this.#sync.drop({ signal });
        return `removed; ${removed.length} objects are gone`;
      }
    }
  }

  /** Copies what is left to copy and follows, until it is halted. */
  #run(by: string): void {
    if (this.#running !== undefined || this.#ending.signal.aborted) return;
    const controller = new AbortController();
    this.#running = { controller, ended: this.#goOn(controller.signal) };
    this.#feed.say("info", `goes on, asked for by ${by}`);
    this.#offer();
  }

  async #halt(): Promise<void> {
    const running = this.#running;
    running?.controller.abort();
    await running?.ended;
    this.#offer();
  }

  async #goOn(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const status = await this.#status();
        if (status === null) break;
        // Whoever was killed while it set the sync up has left some tables out.
        if (["new", "initialised"].includes(status.phase)) await this.#sync.init({ signal });
        if (["new", "initialised", "copying"].includes(status.phase)) await this.#sync.copy({ signal });
        for await (const _batch of this.#sync.follow({ signal, standby: true }));
        // It was asked to end by another command, which has the sync now.
        if (!signal.aborted) await sleep(1000, undefined, { signal }).catch(() => undefined);
      } catch (error) {
        if (signal.aborted) break;
        this.#tell(error);
        await sleep(retryMs, undefined, { signal }).catch(() => undefined);
      }
    }
    this.#running = undefined;
  }

  /** Null: the sync is not set up, or cannot be asked. */
  async #status(): Promise<Status | null> {
    try {
      return await this.#sync.status();
    } catch (error) {
      if (!(error instanceof ReplicateError) || error.code === "INTERNAL") throw error;
      return null;
    }
  }

  #tell(error: unknown): { readonly code: string; readonly message: string; readonly hint: string } {
    const known =
      error instanceof ReplicateError
        ? error
        : new ReplicateError("INTERNAL", String(error), { cause: error });
    const { code, message, hint } = known;
    this.#feed.say("error", `${code}: ${message}`);
    return { code, message, hint: hint ?? "" };
  }

  #offer(): void {
    const { status, tables } = this.#feed.view;
    const known: Status | null = status === null ? null : { ...status, tables };
    this.#feed.patch({
      actions: this.#job === undefined ? actionsFor(known, this.#running !== undefined) : [],
    });
  }
}

/** What fits where a sync stands. */
function actionsFor(status: Status | null, isRunning: boolean): readonly ActionName[] {
  if (status === null) return unknown;
  if (status.switch?.isRunning === true) return [];
  const flow = isRunning ? "pause" : "resume";
  const isOpening = status.switch?.step === "opening";
  const moving = [flow, "preflight", "verify", "repair", "rehearse", "cutover", "abort"] as const;
  const byPhase: Readonly<Record<Status["phase"], readonly ActionName[]>> = {
    new: unknown,
    initialised: ["preflight", flow, "abort"],
    copying: ["preflight", flow, "abort"],
    copied: moving,
    "catching-up": moving,
    following: moving,
    failed: moving,
    fenced: ["cutover", "undo"],
    "cut-over": isOpening ? ["cutover"] : [flow, "verify", "rehearse", "rollback", "finish"],
  };
  return byPhase[status.phase];
}

const unknown: readonly ActionName[] = ["preflight", "schema", "start"];
