/** The public API, in the order data flows. */
export {
  openSync,
  type CallOptions,
  type CutoverOptions,
  type OpenOptions,
  type PreflightReport,
  type Sync,
} from "./sync.ts";
export { defaults, resolveConfig } from "./config/options.ts";
export {
  loadOptions,
  readConfigFile,
  type ConfigFile,
  type GivenSetting,
  type OptionSources,
} from "./config/file.ts";
export type {
  CaptureMethod,
  Direction,
  KeylessPolicy,
  RejectionPolicy,
  SchemaChangePolicy,
  ResolvedConfig,
  ResolvedOverride,
  SyncOptions,
  TableOverride,
} from "./config/options.ts";
export type {
  Conflict,
  ConflictKind,
  ConflictPolicy,
  ConflictResolver,
  ConflictSetting,
  ConflictSide,
  NodeNames,
  Resolution,
} from "./config/conflict-policy.ts";
export type { ColumnSetting, MappingSettings } from "./config/mapping.ts";
export { ReplicateError, errorRules, type ErrorCode, type Problem, type Retry } from "./errors.ts";
export type { Batch, OnEvent, Side, SyncEvent, TableProgress } from "./events.ts";
export type {
  BatchToCome,
  Hooks,
  HooksSetting,
  OnErrorAnswer,
  RejectedRowOfBatch,
  Row,
  TransformRow,
} from "./config/hooks.ts";
export { placeOf, placeText, type Place } from "./postgres/place.ts";
export type { Logger } from "./state/context.ts";
export type { Finding, PreflightOptions, Severity, TableSettings } from "./preflight/preflight.ts";
export type { SchemaComparison } from "./schema/compare.ts";
export type { SchemaDifference } from "./schema/difference.ts";
export type { SchemaOptions, SchemaReport } from "./schema/schema.ts";
export type { NotCreated, Section } from "./schema/plan.ts";
export type { InitOptions, InitReport } from "./init/init.ts";
export type { CopyOptions, CopyReport } from "./copy/copy.ts";
export type { FollowOptions } from "./follow/follow.ts";
export type { VerifyOptions, VerifyReport } from "./verify/verify.ts";
export {
  conflictKinds,
  type ConflictFilter,
  type ConflictsOptions,
  type LoggedConflict,
} from "./conflict/log.ts";
export type { ResolveReport } from "./conflict/resolve.ts";
export type { BatchAtHand } from "./state/runner-lock.ts";
export type { SchemaChange } from "./state/schema-changes.ts";
export type { Phase, Status, Wait } from "./status/report.ts";
export type { SwitchOptions, SwitchReport } from "./cutover/switch-run.ts";
export type { Rehearsal } from "./cutover/rehearse.ts";
export type {
  InterleavedSequence,
  InterleaveOptions,
  InterleaveReport,
  SideOfSequence,
} from "./sequences/interleave.ts";
export type { SequenceChange, SequencesOptions, SequencesReport } from "./sequences/carry.ts";
export type { ParkedOptions, ParkedReport } from "./parked/parked.ts";
export type { ParkedRow } from "./state/parked.ts";
export type { DropOptions, DropReport } from "./drop/drop.ts";
