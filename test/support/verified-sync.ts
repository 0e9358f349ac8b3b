import { resolveConfig, type SyncOptions } from "../../src/config/options.ts";
import type { SyncEvent } from "../../src/events.ts";
import { initSync } from "../../src/init/init.ts";
import type { SyncContext } from "../../src/state/context.ts";
import { makeContext, Sessions } from "../../src/state/open-context.ts";
import { verifySync, type VerifyOptions, type VerifyReport } from "../../src/verify/verify.ts";
import type { Database } from "./database.ts";

// A sync whose copy was done by other means: tests of verify put the rows into both sides themselves.

export interface VerifiedSync extends AsyncDisposable {
  /** Everything that was told, in order. */
  events: SyncEvent[];
  context: (signal?: AbortSignal) => SyncContext;
  verify: (options?: VerifyOptions & { signal?: AbortSignal }) => Promise<VerifyReport>;
  /** The differences of a verification, one line each: `public.users {"id":1} changed name`. */
  differences: (options?: VerifyOptions) => Promise<string[]>;
}

/** Captures the tables and says that they are copied; `follow` or `setPosition` decides from where on. */
export async function startVerifiedSync(
  pair: { source: Pick<Database, "url">; target: Pick<Database, "url" | "sql"> },
  options: Omit<SyncOptions, "source" | "target"> = {},
): Promise<VerifiedSync> {
  const config = resolveConfig({ source: pair.source.url, target: pair.target.url, ...options }, {});
  const sessions = new Sessions();
  const events: SyncEvent[] = [];
  const context = (signal?: AbortSignal): SyncContext =>
    makeContext(config, sessions, { signal, onEvent: (event) => events.push(event) });
  const verify = async (given: VerifyOptions & { signal?: AbortSignal } = {}): Promise<VerifyReport> =>
    await verifySync(context(given.signal), given);
  await initSync(context());
  await pair.target.sql(`update replicate.sync_table set state = 'copied'`);
  return {
    events,
    context,
    verify,
    differences: async (given) =>
      (await verify(given)).tables.flatMap(({ table, differences }) =>
        differences.map(({ key, kind, columns }) => [table, JSON.stringify(key), kind, ...columns].join(" ")),
      ),
    [Symbol.asyncDispose]: async () => await sessions.closeAll(),
  };
}
