/** Conflict policies: how settings say what becomes of a row that was changed on both sides, and what they mean. */
import { statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { tableSettings } from "./overrides.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Side } from "../events.ts";
import { configInvalid, type Check } from "./checks.ts";
import { didYouMean } from "./spelling.ts";

/** PostgreSQL 18's words: what the batch wanted to do, and what it met. */
export type ConflictKind =
  | "insert_exists"
  | "update_origin_differs"
  | "update_missing"
  | "delete_origin_differs"
  | "delete_missing"
  | "multiple_unique_conflicts";

/** What became of a row on one side since both sides last agreed about it. */
export interface ConflictSide {
  /** The database where the change was made, which in a chain or a star may be a third one. */
  readonly node: string;
  readonly change: "insert" | "update" | "delete";
  /** When the change was made, by that server's clock: ISO 8601, UTC, microseconds. Null: not known. */
  readonly at: string | null;
  /** The row by column, as in JSON; a number that JavaScript cannot hold exactly is a text. Null: there is no row. */
  readonly image: Readonly<Record<string, unknown>> | null;
}

/** One row that was changed on both sides. Source and target are the sync's, whichever way the change was to go. */
export interface Conflict {
  /** On the sync's source, quoted where it has to be: `public.users`. */
  readonly table: string;
  /** By column: `{ id: 21 }`. */
  readonly key: Readonly<Record<string, unknown>>;
  readonly kind: ConflictKind;
  readonly source: ConflictSide;
  readonly target: ConflictSide;
  /** Of kind multiple_unique_conflicts: the constraint or index, and the key of the row that has the value already. */
  readonly constraint?: string;
  readonly otherKey?: Readonly<Record<string, unknown>>;
  /**
   * With `{ latest: COLUMN }`: which side's value is greater, as the server compares them. Null: a side has none.
   * With other policies null.
   */
  readonly comparison: Side | "equal" | null;
}

/** What a resolver decides: which side's row is kept, neither for now, or another row on both sides. */
export type Resolution = Side | "skip" | { readonly row: Readonly<Record<string, unknown>> };

/** Decides conflicts in the place of a policy. Called inside of the batch's transaction, so it had better be quick. */
export type ConflictResolver = (conflict: Conflict) => Resolution | Promise<Resolution>;

/** What settings accept. `custom`: a module whose default export, or export named `resolve`, is a resolver. */
export type ConflictSetting =
  | "source-wins"
  | "target-wins"
  | "latest"
  | "skip"
  | "error"
  | { readonly latest: string }
  | { readonly order: readonly string[] }
  | { readonly custom: string | ConflictResolver };

/** The same, checked. `load` throws CONFIG_INVALID. */
export type ConflictPolicy =
  | { readonly kind: "source-wins" | "target-wins" | "latest" | "skip" | "error" }
  | { readonly kind: "latest-column"; readonly column: string }
  | { readonly kind: "order"; readonly nodes: readonly string[] }
  | { readonly kind: "custom"; readonly name: string; load(): Promise<ConflictResolver> };

/** The part of the checked settings that policies are looked up in: that of the sync, and of tables by pattern. */
interface Policies {
  readonly conflict: ConflictPolicy;
  readonly overrides: Readonly<Record<string, { readonly conflict?: ConflictPolicy | null }>>;
}

/** Names of the two databases in conflicts. What is not given is made up at `init`. */
export interface NodeNames {
  readonly source?: string;
  readonly target?: string;
}

const words = ["source-wins", "target-wins", "latest", "skip", "error"] as const;
const forms = ["latest", "order", "custom"] as const;
const examples = "{ latest: COLUMN }, { order: [A, B] } or { custom: ./resolve.js }";

/** How a policy is called in the log of conflicts: `latest`, `latest: updated_at`, `order: a, b`, `custom: merge.js`. */
export function policyLabel(policy: ConflictPolicy): string {
  if (policy.kind === "latest-column") return `latest: ${policy.column}`;
  if (policy.kind === "order") return `order: ${policy.nodes.join(", ")}`;
  return policy.kind === "custom" ? `custom: ${policy.name}` : policy.kind;
}

/** Reads a policy. Undefined: not given, or wrong and reported. `nodes`: those that an order has to name. */
export function checkConflict(
  check: Check,
  path: string,
  value: unknown,
  nodes: NodeNames,
): ConflictPolicy | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value === "string") {
    const word = words.find((each) => each === value);
    if (word !== undefined) return Object.freeze({ kind: word });
    const guess = didYouMean(value, [...words, ...forms]);
    const isForm = forms.some((each) => each === value);
    return check.problem(
      path,
      isForm ? `needs more: ${examples}` : `has to be one of ${words.join(", ")}, or ${examples}${guess}`,
    );
  }
  const given = Object.entries(check.object(path, value, forms));
  if (given.length !== 1) {
    if (!check.problems.some(({ subject }) => subject === path || subject.startsWith(`${path}.`)))
      check.problem(path, `has to be one of ${words.join(", ")}, or one of ${examples}`);
    return undefined;
  }
  const [[form, inner] = [""]] = given;
  if (form === "latest") return checkLatest(check, `${path}.latest`, inner);
  if (form === "order") return checkOrder(check, `${path}.order`, inner, nodes);
  return form === "custom" ? checkCustom(check, `${path}.custom`, inner) : undefined;
}

function checkLatest(check: Check, path: string, value: unknown): ConflictPolicy | undefined {
  const column = check.text(path, value);
  if (column === "") return check.problem(path, "has to be the name of a column");
  return column === undefined ? undefined : Object.freeze({ kind: "latest-column", column });
}

function checkOrder(check: Check, path: string, value: unknown, own: NodeNames): ConflictPolicy | undefined {
  const isList = Array.isArray(value) && value.length > 0 && value.every((each) => typeof each === "string");
  if (!isList) return check.problem(path, "has to be a list of nodes such as [A, C, B]");
  const nodes: readonly string[] = value;
  const twice = nodes.find((each, index) => nodes.indexOf(each) !== index);
  if (twice !== undefined) check.problem(path, `names ${twice} twice`);
  for (const node of [own.source, own.target]) {
    if (node !== undefined && !nodes.includes(node))
      check.problem(path, `does not name ${node}, which is one of nodes${didYouMean(node, nodes)}`);
  }
  return Object.freeze({ kind: "order", nodes: Object.freeze([...nodes]) });
}

function checkCustom(check: Check, path: string, value: unknown): ConflictPolicy | undefined {
  if (typeof value === "function") {
    const resolver = value as ConflictResolver;
    const name = value.name || "function";
    return Object.freeze({ kind: "custom", name, load: () => Promise.resolve(resolver) });
  }
  if (typeof value !== "string" || value === "")
    return check.problem(path, "has to be the path of a module, or a function");
  const file = resolve(value);
  const isFile = statSync(file, { throwIfNoEntry: false })?.isFile() === true;
  if (!isFile) return check.problem(path, `there is no such file: ${file}`);
  return Object.freeze({ kind: "custom", name: basename(file), load: () => importResolver(path, file) });
}

async function importResolver(path: string, file: string): Promise<ConflictResolver> {
  const invalid = (message: string): ReplicateError => configInvalid([{ subject: path, message }]);
  let module: Readonly<Record<string, unknown>>;
  try {
    module = (await import(pathToFileURL(file).href)) as typeof module;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw invalid(`${file} cannot be loaded: ${said}`);
  }
  const found = [module["default"], module["resolve"]].find((each) => typeof each === "function");
  if (found === undefined) throw invalid(`${file} exports no function, as default or named resolve`);
  return found as ConflictResolver;
}

/** The policy of a table of the source. */
export function policyOf(policies: Policies, schema: string, name: string): ConflictPolicy {
  return tableSettings({ schema, name }, policies).conflict ?? policies.conflict;
}

/** Loads the modules of all custom policies, so that they fail early. Throws CONFIG_INVALID with every problem. */
export async function loadResolvers(config: Policies): Promise<void> {
  const policies = [config.conflict, ...Object.values(config.overrides).map(({ conflict }) => conflict)];
  const problems: Problem[] = [];
  for (const policy of policies) {
    if (policy?.kind !== "custom") continue;
    // One after another, so that the problems come in the order of the settings.
    await policy.load().catch((error: unknown) => {
      if (!(error instanceof ReplicateError)) throw error;
      problems.push(...error.problems);
    });
  }
  if (problems.length > 0) throw configInvalid(problems);
}

/** Reads the names of the two databases. */
export function checkNodes(check: Check, value: unknown): NodeNames {
  const given = check.object("nodes", value ?? {}, ["source", "target"]);
  const names = Object.entries(given).flatMap(([side, each]) => {
    const path = `nodes.${side}`;
    const name = check.text(path, each);
    if (name === undefined) return [];
    if (/^[^\s,]{1,63}$/u.test(name)) return [[side, name] as const];
    check.problem(path, "has to consist of 1 to 63 characters, without spaces and commas");
    return [];
  });
  const nodes: NodeNames = Object.fromEntries(names);
  if (nodes.source !== undefined && nodes.source === nodes.target)
    check.problem("nodes.target", "has to differ from nodes.source");
  return Object.freeze(nodes);
}

/** Settings whose policies name their modules by absolute paths; relative ones are meant from `folder`. */
export function withModulesFrom(
  settings: Readonly<Record<string, unknown>>,
  folder: string,
): Record<string, unknown> {
  const placed = (holder: unknown): unknown => {
    const conflict = isRecord(holder) ? holder["conflict"] : undefined;
    const custom = isRecord(conflict) ? conflict["custom"] : undefined;
    if (!isRecord(holder) || !isRecord(conflict) || typeof custom !== "string" || custom === "")
      return holder;
    return { ...holder, conflict: { ...conflict, custom: resolve(folder, custom) } };
  };
  const { overrides } = settings;
  const inner = isRecord(overrides)
    ? { overrides: Object.fromEntries(Object.entries(overrides).map(([key, each]) => [key, placed(each)])) }
    : {};
  return { ...(placed(settings) as Record<string, unknown>), ...inner };
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
