/** Tells of tables that the sync is meant to replicate and does not, each once. */
import { baseName } from "../catalog/delta.ts";
import type { SyncContext } from "../state/context.ts";
import { findNewcomers } from "../state/newcomers.ts";
import type { FollowSession } from "./session.ts";

export class NewcomerWatch {
  readonly #context: SyncContext;
  #told: ReadonlySet<string> = new Set();

  constructor(context: SyncContext) {
    this.#context = context;
  }

  async look({ source, target }: FollowSession): Promise<void> {
    const { config } = this.#context;
    const found = await findNewcomers(config, source, target);
    const side = config.name === baseName(config.name) ? "source" : "target";
    for (const table of found)
      if (!this.#told.has(table)) this.#context.emit({ type: "table-not-replicated", side, table });
    this.#told = new Set(found);
  }
}
