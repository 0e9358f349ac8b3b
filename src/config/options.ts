/** Settings: what may be given, the defaults, and the check that reports every mistake at once. */
import { parsePattern, parseTableName } from "../catalog/patterns.ts";
import {
  checkConflict,
  checkNodes,
  type ConflictPolicy,
  type ConflictSetting,
  type NodeNames,
} from "./conflict-policy.ts";
import { sameOverrides } from "./overrides.ts";
import type { Problem } from "../errors.ts";
import {
  checkMapping,
  checkOneWay,
  checkSchemas,
  checkTargets,
  mappingNames,
  type MappingSettings,
} from "./mapping.ts";
import { checkHooks, type HooksSetting, type HooksSource } from "./hooks.ts";
import type { ConnectionSettings } from "../postgres/conninfo.ts";
import { Check, configInvalid } from "./checks.ts";

/** How updates and deletes of one table are captured. */
export type CaptureMethod = "row" | "statement";

/**
 * What becomes of tables without a key. refuse: preflight blocks until they have one or are left out. reload: any change
 * has the table read again as a whole.
 */
export type KeylessPolicy = "refuse" | "reload";

/**
 * What becomes of a row that the target rejects: a check constraint that only it has, a value too long. stop: the sync
 * stops. park: the row is parked with its error, and tried again when it or the target's table has changed.
 */
export type RejectionPolicy = "stop" | "park";

/**
 * What becomes of a change of a table's schema on the source. apply: it is made on the target too, with the batch behind which
 * it happened. stop: the sync stops and says what to run there.
 */
export type SchemaChangePolicy = "apply" | "stop";

/** Whether changes go from the source to the target alone, or also the other way. */
export type Direction = "one-way" | "both";

/** What the library and the configuration file accept. */
export interface SyncOptions {
  /** Default "default". Letters, digits, `_` and `-`, at most 50. */
  readonly name?: string;
  /** URL or libpq keyword string. Needed: undefined, as of a variable that is not set, is CONFIG_INVALID. */
  readonly source: string | undefined;
  readonly target: string | undefined;
  /** Patterns, default every table outside of system schemas. */
  readonly tables?: readonly string[];
  readonly exclude?: readonly string[];
  /**
   * What becomes of a row that was changed on both sides, decided row by row. Default "source-wins". A module's path is
   * relative to the configuration file, or to the working directory of the program.
   */
  readonly conflict?: ConflictSetting;
  /** both: applications write to source and target. Default "one-way". */
  readonly direction?: Direction;
  /** Names of the databases, for `{ order: […] }` and the log of conflicts. */
  readonly nodes?: NodeNames;
  readonly conflictLog?: {
    /** How long conflicts stay in the log once they are resolved: seconds, or a number with a unit. Default "30d". */
    readonly keep?: string | number;
  };
  /** Default "refuse". */
  readonly keyless?: KeylessPolicy;
  /**
   * Tables without a key up to this size are reloaded while `follow` runs; larger ones wait until a cutover, or
   * `follow` until caught up. Bytes, or a number with a unit. Default "64MB".
   */
  readonly keylessLimit?: string | number;
  /**
   * Deltas that a sync of the same source may hold there while it takes nothing, before everybody who looks is told. Nothing
   * is thrown away for it. Bytes, or a number with a unit. Default "1GB".
   */
  readonly deltaLimit?: string | number;
  /** Schema of the source to schema of the target, for tables without a `target` of their own. */
  readonly schemas?: Readonly<Record<string, string>>;
  /** Default "stop". Not with `direction: both` or a conflict policy, whose target has changes of its own. */
  readonly onRefusal?: RejectionPolicy;
  /**
   * Default "apply"; "stop" with `direction: both` or a conflict policy. Tables that are mapped, or whose columns are not those
   * of the source, stop too; but for these an override may say "apply".
   */
  readonly schemaChanges?: SchemaChangePolicy;
  /** Functions that are called while rows are replicated. A path is relative as that of a conflict's module is. */
  readonly hooks?: HooksSetting;
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

/**
 * Settings of the tables that a name or pattern fits. Several that fit the same table are merged, see config-overrides.ts.
 * null: as if no wider pattern had said anything.
 */
export interface TableOverride extends MappingSettings {
  /** Default "row". */
  readonly capture?: CaptureMethod | null;
  /**
   * Whether updates that change nothing are left out, once the table is copied. Default false: the comparison costs
   * every update, and three times the trigger where a row stores values out of line.
   */
  readonly skipNoop?: boolean | null;
  /** Default: that of the sync. */
  readonly keyless?: KeylessPolicy | null;
  /** Default: that of the sync. */
  readonly conflict?: ConflictSetting | null;
  /** Default: that of the sync. */
  readonly onRefusal?: RejectionPolicy | null;
  /** Default: that of the sync. */
  readonly schemaChanges?: SchemaChangePolicy | null;
  /** Whether the table's rows go through the hook `transformRow`. Default false. */
  readonly transform?: boolean | null;
}

/** The same, checked. */
export type ResolvedOverride = Omit<TableOverride, "conflict"> & {
  readonly conflict?: ConflictPolicy | null;
};

/** The same, checked, with defaults and connection look-ups filled in, and frozen. */
export interface ResolvedConfig {
  readonly name: string;
  readonly source: ConnectionSettings;
  readonly target: ConnectionSettings;
  readonly tables: readonly string[];
  readonly exclude: readonly string[];
  readonly keyless: KeylessPolicy;
  readonly keylessLimitBytes: number;
  readonly onRefusal: RejectionPolicy;
  readonly schemaChanges: SchemaChangePolicy;
  readonly hooks: HooksSource | undefined;
  readonly direction: Direction;
  readonly conflict: ConflictPolicy;
  /** Whether the target's changes are captured too: both sides are written to, or a policy is not the default. */
  readonly tracksTarget: boolean;
  readonly nodes: NodeNames;
  readonly conflictLog: { readonly keepSeconds: number };
  readonly deltaLimitBytes: number;
  readonly schemas: Readonly<Record<string, string>>;
  /** By source table as written by the user; what holds for a table is told by `tableSettings` alone. */
  readonly overrides: Readonly<Record<string, ResolvedOverride>>;
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
  onRefusal: "stop" as RejectionPolicy,
  schemaChanges: "apply" as SchemaChangePolicy,
  direction: "one-way" as Direction,
  conflict: "source-wins" as ConflictSetting,
  conflictLog: Object.freeze({ keep: "30d" }),
  deltaLimit: "1GB",
  copy: Object.freeze({ jobs: 4, indexJobs: 2, partSize: "128MB", indexMemory: "1GB" }),
});

const settingNames = [
  "name", "source", "target", "tables", "exclude", "conflict", "direction", "nodes", "conflictLog", "keyless", "keylessLimit", "deltaLimit", "schemas", "onRefusal", "schemaChanges", "hooks", "overrides", "copy",
] as const; // prettier-ignore
const copyNames = ["jobs", "indexJobs", "partSize", "indexMemory"] as const;
const overrideNames = [
  ...mappingNames,
  "capture",
  "skipNoop",
  "keyless",
  "conflict",
  "onRefusal",
  "schemaChanges",
  "transform",
] as const;
const rejectionPolicies = ["stop", "park"] as const;
const schemaChangePolicies = ["apply", "stop"] as const;
const keylessPolicies = ["refuse", "reload"] as const;

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
  const nodes = checkNodes(check, given["nodes"]);
  const conflict = checkConflict(check, "conflict", given["conflict"] ?? defaults.conflict, nodes);
  const direction = check.oneOf("direction", given["direction"], ["one-way", "both"]) ?? defaults.direction;
  const conflictLog = check.object("conflictLog", given["conflictLog"] ?? {}, ["keep"]);
  const keepSeconds = check.duration("conflictLog.keep", conflictLog["keep"] ?? defaults.conflictLog.keep);
  const keyless = check.oneOf("keyless", given["keyless"], keylessPolicies) ?? defaults.keyless;
  const keylessLimitBytes = check.size("keylessLimit", given["keylessLimit"] ?? defaults.keylessLimit, 0);
  const deltaLimitBytes = check.size("deltaLimit", given["deltaLimit"] ?? defaults.deltaLimit, 0);
  const schemas = checkSchemas(check, given["schemas"]);
  const onRefusal = check.oneOf("onRefusal", given["onRefusal"], rejectionPolicies) ?? defaults.onRefusal;
  const schemaChanges = check.oneOf("schemaChanges", given["schemaChanges"], schemaChangePolicies);
  const hooks = checkHooks(check, "hooks", given["hooks"]);
  const overrides = checkOverrides(check, given["overrides"], nodes);
  const policies = [conflict, ...Object.values(overrides).map((override) => override.conflict)];
  const tracksTarget =
    direction === "both" || policies.some((each) => each != null && each.kind !== "source-wins");
  if (tracksTarget) checkOneWay(check, overrides);

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

  const parking = [
    ...(onRefusal === "park" ? ["onRefusal"] : []),
    ...Object.keys(overrides)
      .filter((table) => overrides[table]?.onRefusal === "park")
      .map((table) => `overrides.${table}.onRefusal`),
  ];
  for (const path of tracksTarget ? parking : [])
    check.problem(
      path,
      "park is not for a target with changes of its own, which would overwrite the source's row that was parked",
    );

  const applying = [
    ...(schemaChanges === "apply" ? ["schemaChanges"] : []),
    ...Object.keys(overrides)
      .filter((table) => overrides[table]?.schemaChanges === "apply")
      .map((table) => `overrides.${table}.schemaChanges`),
  ];
  for (const path of tracksTarget ? applying : [])
    check.problem(
      path,
      "apply is not for a target with changes of its own, which has schema changes of its own as well",
    );

  if (
    check.problems.length > 0 || name === undefined || source === undefined || target === undefined ||
    jobs === undefined || indexJobs === undefined || partBytes === undefined || indexMemoryBytes === undefined ||
    keylessLimitBytes === undefined || deltaLimitBytes === undefined || conflict === undefined || keepSeconds === undefined
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
    onRefusal,
    schemaChanges: schemaChanges ?? (tracksTarget ? "stop" : defaults.schemaChanges),
    hooks,
    direction,
    conflict,
    tracksTarget,
    nodes,
    conflictLog: Object.freeze({ keepSeconds }),
    deltaLimitBytes,
    schemas: Object.freeze(schemas),
    overrides: Object.freeze(overrides),
    copy: Object.freeze({ jobs, indexJobs, partBytes, indexMemoryBytes }),
  });
  return { config, problems: [] };
}

function checkOverrides(check: Check, value: unknown, nodes: NodeNames): Record<string, ResolvedOverride> {
  const all: (readonly [string, ResolvedOverride])[] = [];
  for (const [table, override] of Object.entries(check.object("overrides", value ?? {}))) {
    const path = `overrides.${table}`;
    const given = check.object(path, override ?? {}, overrideNames);
    const [pattern] = check.patterns(path, [table]) ?? [];
    const target = given["target"] == null ? given["target"] : check.text(`${path}.target`, given["target"]);
    if (typeof target === "string") {
      check.attempt(`${path}.target`, () => parseTableName(target));
      if (pattern !== undefined && parsePattern(pattern).table === null) {
        check.problem(path, "a pattern with * or ? cannot be mapped to one target table");
      }
    }
    const capture = check.oneOf(`${path}.capture`, given["capture"], ["row", "statement"] as const);
    const skipNoop = check.boolean(`${path}.skipNoop`, given["skipNoop"]);
    const keyless = check.oneOf(`${path}.keyless`, given["keyless"], keylessPolicies);
    const conflict = checkConflict(check, `${path}.conflict`, given["conflict"], nodes);
    const onRefusal = check.oneOf(`${path}.onRefusal`, given["onRefusal"], rejectionPolicies);
    const schemaChanges = check.oneOf(`${path}.schemaChanges`, given["schemaChanges"], schemaChangePolicies);
    const transform = check.boolean(`${path}.transform`, given["transform"]);
    // What is null takes back what a wider pattern says.
    const taken = Object.entries(given).filter(
      ([name, value]) => value === null && overrideNames.some((each) => each === name),
    );
    const resolved = Object.freeze({
      ...Object.fromEntries(taken),
      ...(typeof target === "string" ? { target } : {}),
      ...checkMapping(check, path, given),
      ...(capture === undefined ? {} : { capture }),
      ...(skipNoop === undefined ? {} : { skipNoop }),
      ...(keyless === undefined ? {} : { keyless }),
      ...(conflict === undefined ? {} : { conflict }),
      ...(onRefusal === undefined ? {} : { onRefusal }),
      ...(schemaChanges === undefined ? {} : { schemaChanges }),
      ...(transform === undefined ? {} : { transform }),
    });
    all.push([table, resolved]);
  }
  const overrides = Object.fromEntries(all);
  if (check.problems.length === 0) {
    for (const [later, earlier] of sameOverrides(Object.keys(overrides)))
      check.problem(`overrides.${later}`, `means the same tables as ${earlier}: put both into one`);
  }
  checkTargets(check, overrides);
  return overrides;
}
