/** The library's events as sentences, for the terminal and for the console. */
import type { SyncEvent } from "../index.ts";
import { bytes, count, duration } from "./format.ts";

/** Events that happen once, unlike progress. */
export type EventOnce = Exclude<
  SyncEvent,
  { type: "copy-progress" | "copy-finished" | "verify-progress" | "fence" }
>;

export interface Sentence {
  readonly level: "info" | "warn";
  readonly text: string;
}

/** The sentence for an event that happens once. */
export function describe(event: EventOnce): Sentence {
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
        event.reason !== undefined
          ? `${event.table} on the ${event.side} is new, and is not replicated: ${event.reason}`
          : `${event.table} on the ${event.side} is not replicated: it was created after \`replicate init\`; take it in with \`replicate init\` and \`replicate copy\`, or leave it out with --exclude-tables`,
      );
    case "table-created":
      return info(
        `the new table ${event.table} was created on the target in ${duration(event.seconds)}: ${event.statements.join("; ")}`,
      );
    case "table-joined":
      return info(`the new table ${event.table} is followed from now on`);
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
