/** Hooks: functions of the user's that are called while rows are replicated. What they are, how settings name them. */
import { statSync } from "node:fs";
import { basename, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { ReplicateError } from "../errors.ts";
import type { Batch } from "../events.ts";
import { configInvalid, type Check } from "./checks.ts";
import { didYouMean } from "./spelling.ts";

/** A batch whose rows are about to be applied; nothing of it is on the target yet. */
export interface BatchToCome {
  /** Name of the sync. */
  readonly sync: string;
  /** On the source, quoted where they have to be: `public.users`. */
  readonly tables: readonly string[];
}

/** A row that the target has rejected, in a batch or while the table is copied. */
export interface RejectedRowOfBatch {
  /** On the source, quoted where it has to be. */
  readonly table: string;
  /** By column: `{ id: 21 }`. */
  readonly key: Readonly<Record<string, unknown>>;
  /** How often its batch, or part of the copy, has been tried, from 1. */
  readonly attempt: number;
}

/** A row by column names of the source. Values are texts as PostgreSQL writes them, such as `t` for true. */
export type Row = Readonly<Record<string, string | null>>;

/**
 * Changes a row on its way, or leaves it out (null). Columns that the result lacks stay as they are; those of the key must
 * not change. Has to answer at once, and the same for the same row: a row is read anew whenever it changes.
 */
export type TransformRow = (
  row: Record<string, string | null>,
  of: { readonly table: string },
) => Readonly<Record<string, string | number | bigint | boolean | null | undefined>> | null;

/** retry: try the batch, or the part of `copy`, again after a second, with another `attempt`. skip: park the row. stop: the sync stops. */
export type OnErrorAnswer = "retry" | "skip" | "stop";

/**
 * One function or some. All but `transformRow` may be asynchronous. One that throws stops the sync with HOOK_FAILED, and its batch is not
 * applied (but for `afterBatch`, whose batch is).
 */
export interface Hooks {
  /** Called before a batch is applied, with locks on the source that do not keep anybody from reading or writing. */
  readonly beforeBatch?: (batch: BatchToCome) => void | Promise<void>;
  /** Called after a batch's commit on the target. Not again for the same batch, also not if the process dies in between. */
  readonly afterBatch?: (batch: Batch) => void | Promise<void>;
  /**
   * Called for each row of the tables that ask for it (`transform: true` in `overrides`), in copy and follow. The slow path:
   * each of these rows becomes an object.
   */
  readonly transformRow?: TransformRow;
  /** Decides about each row that the target rejects, in the place of `onRefusal`. Called inside of the batch's or part's transaction. */
  readonly onError?: (
    error: ReplicateError,
    row: RejectedRowOfBatch,
  ) => OnErrorAnswer | Promise<OnErrorAnswer>;
}

/** What settings accept: the path of a module whose default export has the functions, or in a program the functions. */
export type HooksSetting = string | Hooks;

/** The same, checked. `load` throws CONFIG_INVALID. */
export interface HooksSource {
  load(): Promise<Hooks>;
}

const names = [
  "beforeBatch",
  "afterBatch",
  "transformRow",
  "onError",
] as const satisfies readonly (keyof Hooks)[];
const answers = ["retry", "skip", "stop"] as const satisfies readonly OnErrorAnswer[];

/** What is wrong with an object that should have hooks. */
function wrongWith(hooks: unknown): string | undefined {
  if (typeof hooks !== "object" || hooks === null) return "is no object with functions";
  for (const [name, each] of Object.entries(hooks)) {
    if (!names.some((known) => known === name))
      return `has ${name}, which is no hook${didYouMean(name, names)}`;
    if (each !== undefined && typeof each !== "function") return `has ${name}, which is no function`;
  }
  return undefined;
}

/** Reads the setting. Undefined: not given, or wrong and reported. */
export function checkHooks(check: Check, path: string, value: unknown): HooksSource | undefined {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== "string") {
    const wrong = wrongWith(value);
    if (wrong !== undefined) return check.problem(path, wrong);
    const hooks = value as Hooks;
    return Object.freeze({ load: () => Promise.resolve(hooks) });
  }
  const file = resolve(value);
  const isFile = value !== "" && statSync(file, { throwIfNoEntry: false })?.isFile() === true;
  if (!isFile) return check.problem(path, `there is no such file: ${file}`);
  return Object.freeze({ load: async () => await importHooks(path, file) });
}

async function importHooks(path: string, file: string): Promise<Hooks> {
  const invalid = (message: string): ReplicateError => configInvalid([{ subject: path, message }]);
  let module: { readonly default?: unknown };
  try {
    module = (await import(pathToFileURL(file).href)) as typeof module;
  } catch (error) {
    throw invalid(`${file} cannot be loaded: ${error instanceof Error ? error.message : String(error)}`);
  }
  const wrong = wrongWith(module.default);
  if (wrong !== undefined) throw invalid(`the default export of ${basename(file)} ${wrong}`);
  return module.default as Hooks;
}

/** Loads the hooks of a sync. Throws CONFIG_INVALID, also for one that does not go with the other settings. */
export async function loadHooks(config: {
  readonly hooks: HooksSource | undefined;
  readonly tracksTarget: boolean;
  readonly overrides: Readonly<Record<string, { readonly transform?: boolean | null }>>;
}): Promise<Hooks> {
  const hooks = (await config.hooks?.load()) ?? {};
  const asks = Object.entries(config.overrides).find(([, each]) => each.transform === true)?.[0];
  if (asks !== undefined && hooks.transformRow === undefined)
    throw configInvalid([
      { subject: `overrides.${asks}.transform`, message: "needs a hook transformRow (hooks)" },
    ]);
  if (asks !== undefined && config.tracksTarget)
    throw configInvalid([
      {
        subject: `overrides.${asks}.transform`,
        message: "is not for a target with changes of its own, which would come back transformed",
      },
    ]);
  if (asks === undefined && hooks.transformRow !== undefined)
    throw configInvalid([
      { subject: "hooks", message: "transformRow is never called: no table has transform: true (overrides)" },
    ]);
  if (hooks.onError !== undefined && config.tracksTarget)
    throw configInvalid([
      {
        subject: "hooks",
        message: "onError is not for a target with changes of its own, as onRefusal: park is not",
      },
    ]);
  return hooks;
}

/** Calls a hook. Throws HOOK_FAILED with what it has thrown. */
export async function callHook<T>(name: keyof Hooks, call: () => T | Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw hookFailed(name, error instanceof Error ? error.message : String(error), error);
  }
}

/** The same for `onError`, whose answer is checked. */
export async function askOnError(
  onError: NonNullable<Hooks["onError"]>,
  error: ReplicateError,
  row: RejectedRowOfBatch,
): Promise<OnErrorAnswer> {
  const answer = await callHook("onError", () => onError(error, row));
  if (!answers.includes(answer))
    throw hookFailed("onError", `it answered ${String(answer)} and not ${answers.join(", ")}`);
  return answer;
}

export function hookFailed(name: keyof Hooks, said: string, cause?: unknown): ReplicateError {
  return new ReplicateError("HOOK_FAILED", `the hook ${name} failed: ${said}`, {
    ...(cause === undefined ? {} : { cause }),
    hint: "Repair the function, then start again.",
  });
}
