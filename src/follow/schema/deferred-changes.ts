/**
 * Changes of the schema that are made outside of a batch, once it is committed: indexes, which are built while rows go on being
 * written and read. In a session of their own. The target remembers them, so that whoever follows next goes on.
 */
import type { TableDefinition } from "../../catalog/table-definition.ts";
import type { Connection } from "../../postgres/connect.ts";
import { failpoint } from "../../postgres/failpoint.ts";
import { saidBy } from "../../postgres/server-words.ts";
import { asReplicateError } from "../../postgres/sqlstate.ts";
import type { SyncContext } from "../../state/context.ts";
import {
  endDeferred,
  forgetDeferred,
  nextDeferred,
  noteDeferredFailure,
  type DeferredChange,
} from "../../state/schema-changes.ts";
import { qualified } from "../../postgres/sql.ts";

/** Between two tries, where one could not be made. */
const PAUSE_MS = 10_000;

export class DeferredChanges {
  readonly #context: SyncContext;
  #work: Promise<void> | undefined;
  #session: Connection | undefined;
  #pausedUntil = 0;
  #isCut = false;
  /** Something may be deferred. At first by whoever followed before. */
  #mayDefer = true;

  constructor(context: SyncContext) {
    this.#context = context;
  }

  /** Something was written down. */
  note(): void {
    this.#mayDefer = true;
  }

  /** Begins, if there is something to do and nothing is being done. */
  make(): void {
    if (!this.#mayDefer || this.#work !== undefined || Date.now() < this.#pausedUntil) return;
    this.#mayDefer = false;
    this.#work = this.#makeAll()
      .catch((error: unknown) => {
        this.#mayDefer = true;
        this.#pausedUntil = Date.now() + PAUSE_MS;
        if (this.#context.signal.aborted || this.#isCut) return;
        const { message } = asReplicateError(error, "making schema changes outside of a batch");
        this.#context.emit({ type: "warning", message });
      })
      .finally(() => (this.#work = undefined));
  }

  /** Resolves when what was begun is done. Never rejects. */
  get done(): Promise<void> {
    return this.#work ?? Promise.resolve();
  }

  /** What was begun is begun again by whoever follows next. */
  cut(): void {
    this.#isCut = true;
    this.#session?.destroy();
  }

  async #makeAll(): Promise<void> {
    const { config } = this.#context;
    const failed: number[] = [];
    for (;;) {
      const deferred = await this.#withSession(async (target) => {
        const next = await nextDeferred(target, config.name, failed);
        if (next !== undefined) await this.#make(target, next, failed);
        return next;
      });
      if (deferred === undefined || this.#isCut) break;
    }
    if (failed.length === 0) return;
    this.#mayDefer = true;
    this.#pausedUntil = Date.now() + PAUSE_MS;
  }

  async #withSession<T>(work: (target: Connection) => Promise<T>): Promise<T> {
    // A build waits for transactions that are older, however long they last.
    this.#session ??= await this.#context.target("follow indexes", { lockTimeoutMs: 0 });
    try {
      const result = await work(this.#session);
      if (result === undefined) await this.#close();
      return result;
    } catch (error) {
      await this.#close();
      throw error;
    }
  }

  async #close(): Promise<void> {
    const session = this.#session;
    this.#session = undefined;
    await session?.close();
  }

  async #make(target: Connection, deferred: DeferredChange, failed: number[]): Promise<void> {
    if (!isWanted(deferred)) return await forgetDeferred(target, deferred.id);
    const startedAt = performance.now();
    try {
      await clearAway(target, deferred);
      await target.script(gently(deferred));
      await failpoint("schema.built");
    } catch (error) {
      if (target.isBroken) throw error;
      failed.push(deferred.id);
      await noteDeferredFailure(target, deferred.id, saidBy(error));
      this.#context.emit({
        type: "warning",
        message: `${deferred.table}: ${saidBy(error)}; it is tried again: ${deferred.statement}`,
      });
      return;
    }
    const seconds = (performance.now() - startedAt) / 1000;
    await endDeferred(target, deferred.id, seconds);
    const { table, statement } = deferred;
    this.#context.emit({ type: "schema-change-applied", table, statement, seconds });
  }
}

const CREATE_INDEX = /^CREATE (UNIQUE )?INDEX ("(?:[^"]|"")+"|\S+) ON (ONLY )?/;

/** Whether the source still has the index. */
function isWanted({ statement, definition }: DeferredChange): boolean {
  if (!CREATE_INDEX.test(statement)) return true;
  return definition?.indexes.some((index) => index.definition === statement) === true;
}

function isPartitioned(definition: TableDefinition | null): boolean {
  return definition?.kind === "p";
}

/** Nobody waits for the build, unless it is of a partitioned table: there writers do, who are none but us. */
function gently({ statement, definition }: DeferredChange): string {
  const found = CREATE_INDEX.exec(statement);
  if (found === null) return statement;
  const [whole, unique = "", name] = found;
  const way = isPartitioned(definition) ? "" : "concurrently ";
  return `create ${unique}index ${way}if not exists ${name} on ${statement.slice(whole.length)}`;
}

/** What a build that was ended has left behind. */
async function clearAway(target: Connection, { statement, definition }: DeferredChange): Promise<void> {
  const index = definition?.indexes.find((each) => each.definition === statement);
  if (index === undefined || definition === null || isPartitioned(definition)) return;
  const name = qualified(definition.schema, index.name);
  const rows = await target.rows(
    `select 1 from pg_catalog.pg_index where indexrelid = pg_catalog.to_regclass($1) and not indisvalid`,
    [name],
  );
  if (rows.length > 0) await target.script(`drop index concurrently if exists ${name}`);
}
