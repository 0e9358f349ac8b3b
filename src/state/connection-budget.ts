/** Whether the servers let us have as many connections as work needs that cannot go on with fewer. */
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import type { SyncContext } from "./context.ts";

/** Connections at the same time. */
export interface ConnectionNeed {
  readonly source: number;
  readonly target: number;
}

export function isOverBudget(error: unknown): error is ReplicateError {
  return error instanceof ReplicateError && error.code === "TOO_MANY_CONNECTIONS";
}

/** Opens that many sessions and closes them again. Throws TOO_MANY_CONNECTIONS, with the number that is needed. */
export async function assertConnectionBudget(
  context: SyncContext,
  doing: string,
  need: ConnectionNeed,
): Promise<void> {
  await Promise.all([
    assertSide(context, doing, "source", need.source),
    assertSide(context, doing, "target", need.target),
  ]);
}

async function assertSide(context: SyncContext, doing: string, side: Side, need: number): Promise<void> {
  const results = await Promise.allSettled(
    Array.from({ length: need }, async () => await context[side](doing)),
  );
  const opened = results.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
  await Promise.all(opened.map((connection) => connection.close()));
  const reasons = results.flatMap((each) => (each.status === "rejected" ? [each.reason as unknown] : []));
  if (reasons.length === 0) return;
  const [other] = reasons.filter((reason) => !isOverBudget(reason));
  throw other ?? tooFew(doing, side, need, opened.length, reasons[0] as ReplicateError);
}

function tooFew(doing: string, side: Side, need: number, got: number, cause: ReplicateError): ReplicateError {
  return new ReplicateError(
    "TOO_MANY_CONNECTIONS",
    `${doing} needs ${need} connections to the ${side} at the same time, and only ${got} could be had: ${cause.message}`,
    {
      side,
      cause,
      hint: `Raise the limit to ${need} or more (alter role … connection limit, alter database … connection limit), or end other sessions of that role.`,
    },
  );
}
