/** Settings: what may be given, the defaults, and the check that reports every mistake at once. */
import { parsePattern, parseTableName } from "./catalog/patterns.ts";
import { ReplicateError, type Problem } from "./errors.ts";
import { resolveConnection, type ConnectionSettings } from "./postgres/conninfo.ts";
import { didYouMean } from "./spelling.ts";

/** How updates and deletes of one table are captured. */
export type CaptureMethod = "row" | "statement";

/**
 * What becomes of tables without a key. refuse: preflight blocks until they have one or are left out. reload: any change
 * has the table read again as a whole.
 */
export type KeylessPolicy = "refuse" | "reload";

/** What the library and the configuration file accept. */
export interface SyncOptions {
  /** Default "default". Letters, digits, `_` and `-`, at most 50. */
  readonly name?: string;
  /** URL or libpq keyword string. */
  readonly source: string;
  readonly target: string;
  /** Patterns, default every table outside of system schemas. */
  readonly tables?: readonly string[];
  readonly exclude?: readonly string[];
  readonly conflict?: "source-wins";
  readonly direction?: "one-way";
  /** Default "refuse". */
  readonly keyless?: KeylessPolicy;
  /**
   * Tables without a key up to this size are reloaded while `follow` runs; larger ones wait until a cutover, or
   * `follow` until caught up. Bytes, or a number with a unit. Default "64MB".
   */
  readonly keylessLimit?: string | number;
  readonly overrides?: Readonly<Record<string, TableOverride>>;
  readonly copy?: {
    readonly jobs?: number;
    readonly indexJobs?: number;
    /** Bytes, or a number with a unit: "128MB". */
    readonly partSize?: string | number;
    /** Memory that all index builds together may use on the target: "1GB". */
    readonly indexMemory?: string | number;
  };
}

export interface TableOverride {
  /** Name of the table on the target. */
  readonly target?: string;
  /** Default "row". */
  readonly capture?: CaptureMethod;
  /**
   * Whether updates that change nothing are left out, once the table is copied. Default false: the comparison costs
   * every update, and three times the trigger where a row stores values out of line.
   */
  readonly skipNoop?: boolean;
  /** Default: that of the sync. */
  readonly keyless?: KeylessPolicy;
}

/** The same, checked, with defaults and connection look-ups filled in, and frozen. */
export interface ResolvedConfig {
  readonly name: string;
  readonly source: ConnectionSettings;
  readonly target: ConnectionSettings;
  readonly tables: readonly string[];
  readonly exclude: readonly string[];
  readonly keyless: KeylessPolicy;
  readonly keylessLimitBytes: number;
  /** By source table as written by the user; match with `patternMatches`. */
  readonly overrides: Readonly<Record<string, TableOverride>>;
  readonly copy: {
    readonly jobs: number;
    readonly indexJobs: number;
    readonly partBytes: number;
    readonly indexMemoryBytes: number;
  };
}

/** What is used where nothing is said. `tables` empty means all. */
export const defaults = Object.freeze({
  name: "default",
  keyless: "refuse" as KeylessPolicy,
  keylessLimit: "64MB",
  copy: Object.freeze({ jobs: 4, indexJobs: 2, partSize: "128MB", indexMemory: "1GB" }),
});

const settingNames = [
  "name", "source", "target", "tables", "exclude", "conflict", "direction", "keyless", "keylessLimit", "overrides", "copy",
] as const; // prettier-ignore
const copyNames = ["jobs", "indexJobs", "partSize", "indexMemory"] as const;
const overrideNames = ["target", "capture", "skipNoop", "keyless"] as const;
const keylessPolicies = ["refuse", "reload"] as const;
/** Settings with a meaning that this version does not have yet: refused by name instead of "unknown". */
const laterOverrideNames = ["where", "columns", "conflict"];

const mostJobs = 64;
const megabyte = 1024 ** 2;

/**
 * Checks settings and fills in defaults and what libpq would look up (see `resolveConnection`). For a connection
 * without a password, REPLICATE_SOURCE_PASSWORD and REPLICATE_TARGET_PASSWORD come before PGPASSWORD.
 * Throws CONFIG_INVALID with all problems; the subject of each is the setting's path, such as `copy.jobs`.
 */
export function resolveConfig(input: SyncOptions, env: NodeJS.ProcessEnv): ResolvedConfig {
  const { config, problems } = checkOptions(input, env);
  if (config === undefined) throw configInvalid(problems);
  return config;
}

/** As `resolveConfig`, for callers that have more problems to report. */
export function checkOptions(
  input: SyncOptions,
  env: NodeJS.ProcessEnv,
): { readonly config: ResolvedConfig | undefined; readonly problems: readonly Problem[] } {
  const check = new Check();
  // Nothing is taken for granted: the settings may come from a file or from a program without types.
  const given = check.object("", input, settingNames);
  const name = check.text("name", given["name"] ?? defaults.name);
  if (name !== undefined && !/^[A-Za-z0-9_-]{1,50}$/.test(name)) {
    check.problem("name", "has to consist of 1 to 50 letters, digits, _ and -");
  }
  const source = check.connection("source", given["source"], env);
  const target = check.connection("target", given["target"], env);
  const tables = check.patterns("tables", given["tables"]);
  const exclude = check.patterns("exclude", given["exclude"]);
  if (Array.isArray(given["tables"]) && given["tables"].length === 0)
    check.problem("tables", "is empty: leave it out for all tables");
  checkOnly(check, "conflict", given["conflict"], "source-wins", [
    "target-wins",
    "error",
    "skip",
    "latest",
    "custom",
  ]);
  checkOnly(check, "direction", given["direction"], "one-way", ["both"]);
  const keyless = check.oneOf("keyless", given["keyless"], keylessPolicies) ?? defaults.keyless;
  const keylessLimitBytes = check.size("keylessLimit", given["keylessLimit"] ?? defaults.keylessLimit, 0);
  const overrides = checkOverrides(check, given["overrides"]);

  const copy = check.object("copy", given["copy"] ?? {}, copyNames);
  const jobs = check.integer("copy.jobs", copy["jobs"] ?? defaults.copy.jobs, 1, mostJobs);
  const indexJobs = check.integer(
    "copy.indexJobs",
    copy["indexJobs"] ?? defaults.copy.indexJobs,
    1,
    mostJobs,
  );
  const partBytes = check.size("copy.partSize", copy["partSize"] ?? defaults.copy.partSize, 8192);
  const indexMemoryBytes = check.size(
    "copy.indexMemory",
    copy["indexMemory"] ?? defaults.copy.indexMemory,
    megabyte,
  );

  if (
    check.problems.length > 0 || name === undefined || source === undefined || target === undefined ||
    jobs === undefined || indexJobs === undefined || partBytes === undefined || indexMemoryBytes === undefined ||
    keylessLimitBytes === undefined
  ) {
    return { config: undefined, problems: check.problems };
  } // prettier-ignore
  const config: ResolvedConfig = Object.freeze({
    name,
    source,
    target,
    tables: Object.freeze(tables ?? []),
    exclude: Object.freeze(exclude ?? []),
    keyless,
    keylessLimitBytes,
    overrides: Object.freeze(overrides),
    copy: Object.freeze({ jobs, indexJobs, partBytes, indexMemoryBytes }),
  });
  return { config, problems: [] };
}

/** The error for settings that are wrong. */
export function configInvalid(problems: readonly Problem[]): ReplicateError {
  const count = problems.length === 1 ? "one setting is" : `${problems.length} settings are`;
  return new ReplicateError("CONFIG_INVALID", `${count} wrong`, { problems });
}

/** Bytes of a size: a number, or text with a unit of 1024 (`B`, `kB`, `MB`, `GB`, `TB`). Undefined if it is none. */
export function parseSize(size: string | number): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(B|[kMGT]i?B)?\s*$/i.exec(String(size));
  if (match === null) return undefined;
  const power = ["B", "K", "M", "G", "T"].indexOf((match[2]?.[0] ?? "B").toUpperCase());
  const bytes = Math.round(Number(match[1]) * 1024 ** power);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

function checkOnly(check: Check, path: string, value: unknown, only: string, later: readonly string[]): void {
  if (value === undefined || value === null || value === only) return;
  const word = typeof value === "object" ? Object.keys(value)[0] : value;
  const isLater = typeof word === "string" && later.includes(word);
  check.problem(
    path,
    isLater ? `${word} is not available in this version, only ${only}` : `has to be ${only}`,
  );
}

function checkOverrides(check: Check, value: unknown): Record<string, TableOverride> {
  const overrides: Record<string, TableOverride> = {};
  const targets = new Map<string, string>();
  for (const [table, override] of Object.entries(check.object("overrides", value ?? {}))) {
    const path = `overrides.${table}`;
    const given = check.object(path, override ?? {}, overrideNames, laterOverrideNames);
    const [pattern] = check.patterns(path, [table]) ?? [];
    const target = given["target"] === undefined ? undefined : check.text(`${path}.target`, given["target"]);
    if (target !== undefined) {
      const key = check.attempt(`${path}.target`, () => JSON.stringify(parseTableName(target)));
      const other = key === undefined ? undefined : targets.get(key);
      if (other !== undefined) check.problem(`${path}.target`, `${other} is mapped to the same table`);
      if (key !== undefined) targets.set(key, table);
      if (pattern !== undefined && parsePattern(pattern).table === null) {
        check.problem(path, "a pattern with * or ? cannot be mapped to one target table");
      }
    }
    const capture = check.oneOf(`${path}.capture`, given["capture"], ["row", "statement"] as const);
    const skipNoop = check.boolean(`${path}.skipNoop`, given["skipNoop"]);
    const keyless = check.oneOf(`${path}.keyless`, given["keyless"], keylessPolicies);
    overrides[table] = Object.freeze({
      ...(target === undefined ? {} : { target }),
      ...(capture === undefined ? {} : { capture }),
      ...(skipNoop === undefined ? {} : { skipNoop }),
      ...(keyless === undefined ? {} : { keyless }),
    });
  }
  return overrides;
}

/** Reads values of unknown type and collects what is wrong with them. Undefined: wrong, and reported. */
class Check {
  readonly problems: Problem[] = [];

  problem(subject: string, message: string): undefined {
    this.problems.push({ subject, message });
  }

  object(
    path: string,
    value: unknown,
    known?: readonly string[],
    later: readonly string[] = [],
  ): Readonly<Record<string, unknown>> {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.problem(path || "settings", "has to be a set of names and values");
      return {};
    }
    const entries = Object.entries(value).filter(([, each]) => each !== undefined);
    for (const [key] of known === undefined ? [] : entries) {
      if (known?.includes(key)) continue;
      const subject = path === "" ? key : `${path}.${key}`;
      if (later.includes(key)) this.problem(subject, "is not available in this version");
      else this.problem(subject, `is no setting${didYouMean(key, known ?? [])}`);
    }
    return Object.fromEntries(entries);
  }

  text(path: string, value: unknown): string | undefined {
    return typeof value === "string" ? value : this.problem(path, "has to be a text");
  }

  integer(path: string, value: unknown, least: number, most: number): number | undefined {
    // A flag or an expanded variable comes as text.
    const number = typeof value === "string" && /^\s*\d+\s*$/.test(value) ? Number(value) : value;
    const isRight =
      typeof number === "number" && Number.isInteger(number) && number >= least && number <= most;
    return isRight ? number : this.problem(path, `has to be a whole number from ${least} to ${most}`);
  }

  size(path: string, value: unknown, leastBytes: number): number | undefined {
    const bytes = typeof value === "string" || typeof value === "number" ? parseSize(value) : undefined;
    if (bytes === undefined) return this.problem(path, "has to be a size such as 128MB or 1GB");
    const least = leastBytes < megabyte ? `${leastBytes / 1024}kB` : `${leastBytes / megabyte}MB`;
    return bytes >= leastBytes ? bytes : this.problem(path, `has to be at least ${least}`);
  }

  oneOf<T extends string>(path: string, value: unknown, allowed: readonly T[]): T | undefined {
    if (value === undefined || value === null) return undefined;
    const found = allowed.find((each) => each === value);
    return found ?? this.problem(path, `has to be one of ${allowed.join(", ")}`);
  }

  boolean(path: string, value: unknown): boolean | undefined {
    if (value === undefined || value === null || typeof value === "boolean") return value ?? undefined;
    return this.problem(path, "has to be true or false");
  }

  patterns(path: string, value: unknown): readonly string[] | undefined {
    if (value === undefined || value === null) return undefined;
    if (!Array.isArray(value) || !value.every((each) => typeof each === "string")) {
      return this.problem(path, 'has to be a list of patterns such as ["public.*"]');
    }
    return value.filter((each) => this.attempt(path, () => parsePattern(each)) !== undefined);
  }

  connection(
    side: "source" | "target",
    value: unknown,
    env: NodeJS.ProcessEnv,
  ): ConnectionSettings | undefined {
    if (value === undefined || value === null || value === "") {
      const variable = `REPLICATE_${side.toUpperCase()}`;
      return this.problem(
        side,
        `is missing: give --${side}, the variable ${variable}, or a line in the file`,
      );
    }
    const text = this.text(side, value);
    const password = env[`REPLICATE_${side.toUpperCase()}_PASSWORD`] || env["PGPASSWORD"];
    return text === undefined
      ? undefined
      : this.attempt(side, () => resolveConnection(text, password ? { ...env, PGPASSWORD: password } : env));
  }

  /** Takes over the problems of a ReplicateError, under the path of the setting. */
  attempt<T>(path: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof ReplicateError)) throw error;
      for (const { subject, message } of error.problems) {
        this.problem(path, path === subject || subject === "connection" ? message : `${subject}: ${message}`);
      }
      return undefined;
    }
  }
}
