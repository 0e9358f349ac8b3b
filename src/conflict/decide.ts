/** Decides what becomes of one row that was changed on both sides. Pure, but for the resolver of a custom policy. */
import type { Side } from "../events.ts";
import { isDeepStrictEqual } from "node:util";
import {
  policyLabel,
  type Conflict,
  type ConflictPolicy,
  type ConflictSide,
} from "../config/conflict-policy.ts";
import { ReplicateError } from "../errors.ts";

/**
 * source, target: the row of that side is kept, or its absence. skip: neither side changes until somebody resolves it.
 * error: the sync stops. merged: both sides get this row, which has the same columns and the same key.
 */
export type Decision =
  | { readonly winner: Side | "skip" | "error" }
  | { readonly winner: "merged"; readonly image: Readonly<Record<string, unknown>> };

type Winner = Side | "equal";

/**
 * Decides by the policy. Which side deleted the row makes no difference but for `{ latest: COLUMN }`, which then
 * compares times. Throws CONFLICT_RESOLVER_FAILED, CONFIG_INVALID where a resolver cannot be loaded.
 */
export async function decide(policy: ConflictPolicy, conflict: Conflict): Promise<Decision> {
  switch (policy.kind) {
    case "source-wins":
      return { winner: "source" };
    case "target-wins":
      return { winner: "target" };
    case "skip":
    case "error":
      return { winner: policy.kind };
    case "latest":
      return { winner: byNode(byTime(conflict), conflict) };
    case "latest-column":
      return { winner: byNode(byColumn(policy.column, conflict), conflict) };
    case "order":
      return { winner: byOrder(policy.nodes, conflict) };
    case "custom":
      return await byResolver(policy, conflict);
  }
}

/**
 * The later change wins, and one whose time is not known loses. Where neither is known, because the sides were found to
 * differ, a row wins against none.
 */
function byTime({ source, target }: Conflict): Winner {
  const isUnknown = source.at === null && target.at === null;
  if (isUnknown && (source.image === null) !== (target.image === null))
    return source.image === null ? "target" : "source";
  if (source.at === target.at) return "equal";
  if (source.at === null || target.at === null) return source.at === null ? "target" : "source";
  return source.at > target.at ? "source" : "target";
}

/** The greater value wins, and null loses. A row that is gone has no value, so then the times of the changes count. */
function byColumn(column: string, conflict: Conflict): Winner {
  const { source, target, comparison } = conflict;
  if (source.image === null || target.image === null) return byTime(conflict);
  if (comparison !== null) return comparison;
  const [hasSource, hasTarget] = [source.image, target.image].map(
    (image) => (image[column] ?? null) !== null,
  );
  if (hasSource === hasTarget) return "equal";
  return hasSource ? "source" : "target";
}

/** Where nothing else tells the sides apart the greater name does, so that every database decides alike. */
function byNode(winner: Winner, { source, target }: Conflict): Side {
  if (winner !== "equal") return winner;
  return target.node > source.node ? "target" : "source";
}

/** The node that is named first wins, and any node that is named wins against one that is not. */
function byOrder(nodes: readonly string[], { source, target }: Conflict): Side | "error" {
  const rank = ({ node }: ConflictSide): number => (nodes.includes(node) ? nodes.indexOf(node) : Infinity);
  const [ofSource, ofTarget] = [rank(source), rank(target)];
  if (ofSource === Infinity && ofTarget === Infinity) return "error";
  return ofTarget < ofSource ? "target" : "source";
}

/** How long a resolver may take for a conflict, in milliseconds: until then rows are locked, and the batch is open. */
const RESOLVER_MS = 10_000;

async function byResolver(
  policy: Extract<ConflictPolicy, { kind: "custom" }>,
  conflict: Conflict,
): Promise<Decision> {
  const fail = (what: string, cause?: unknown): ReplicateError =>
    new ReplicateError(
      "CONFLICT_RESOLVER_FAILED",
      `${policyLabel(policy)}: ${what}, for ${describeConflict(conflict)}`,
      { cause },
    );
  const resolve = await policy.load();
  const late = Symbol("late");
  let timer: NodeJS.Timeout | undefined;
  let resolution: unknown;
  try {
    const answer = resolve(deepFreeze(structuredClone(conflict)));
    const end = new Promise((settle) => (timer = setTimeout(settle, RESOLVER_MS, late)));
    resolution = await Promise.race([answer, end]);
  } catch (error) {
    throw fail(`it failed with ${error instanceof Error ? error.message : String(error)}`, error);
  } finally {
    clearTimeout(timer);
  }
  if (resolution === late) throw fail(`it did not answer within ${RESOLVER_MS / 1000} seconds`);
  if (resolution === "source" || resolution === "target" || resolution === "skip")
    return { winner: resolution };
  const row = isRecord(resolution) && Object.keys(resolution).join(",") === "row" ? resolution["row"] : null;
  if (!isRecord(row)) throw fail(`it returned neither "source", "target", "skip" nor { row: { … } }`);
  const wrong = wrongRow(row, conflict);
  if (wrong !== undefined) throw fail(`it returned a row ${wrong}`);
  return { winner: "merged", image: { ...row } };
}

/** What keeps a merged row from being written to both sides. */
function wrongRow(row: Readonly<Record<string, unknown>>, conflict: Conflict): string | undefined {
  const { source, target, key, kind } = conflict;
  if (kind === "multiple_unique_conflicts")
    return "where two rows want the same value: one of them has to go";
  const columns = new Set([...Object.keys(source.image ?? {}), ...Object.keys(target.image ?? {})]);
  const unknown = Object.keys(row).find((column) => !columns.has(column));
  if (unknown !== undefined) return `with a column ${unknown}, which the table does not have`;
  const missing = [...columns].find((column) => row[column] === undefined);
  if (missing !== undefined) return `without the column ${missing}`;
  // As the sides have it: a key that JavaScript cannot hold exactly is a text there.
  const image = source.image ?? target.image ?? key;
  const changed = Object.keys(key).find((column) => !isDeepStrictEqual(row[column], image[column]));
  return changed === undefined ? undefined : `with another key in ${changed}`;
}

/** `public.users id=21 (update_origin_differs: update on a, delete on b)`, for messages and logs. */
function describeConflict({ table, key, kind, source, target, constraint }: Conflict): string {
  const values = Object.entries(key).map(([column, value]) => `${column}=${asText(value)}`);
  const sides = [source, target].map(({ change, node }) => `${change} on ${node}`).join(", ");
  const by = constraint === undefined ? "" : ` by ${constraint}`;
  return `${table} ${values.join(", ")} (${kind}${by}: ${sides})`;
}

/** The error with which the policy `error` stops a sync, and `order` where it names neither node. */
export function conflictError(policy: ConflictPolicy, conflict: Conflict): ReplicateError {
  const why = policy.kind === "order" ? `; ${policyLabel(policy)} names neither` : "";
  return new ReplicateError("CONFLICT", `changed on both sides: ${describeConflict(conflict)}${why}`);
}

function asText(value: unknown): string {
  return typeof value === "string" ? value : JSON.stringify(value);
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null) {
    Object.values(value).forEach(deepFreeze);
    Object.freeze(value);
  }
  return value;
}
