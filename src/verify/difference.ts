/** What is asked about a part whose sums differ, and what is found. */
import type { Checksum } from "./checksum.ts";
import type { TablePlan } from "./plan.ts";

/** A key value: numbers as far as JavaScript holds them exactly, everything else as text. */
export type KeyValue = string | number | boolean;

export interface Difference {
  /** By source column name, in key order. */
  readonly key: Readonly<Record<string, KeyValue>>;
  /** As seen from the target: missing there, extra there, or there with other contents. */
  readonly kind: "missing" | "extra" | "changed";
  /** Source names of the columns that differ; empty unless changed. */
  readonly columns: readonly string[];
  /** The target has rejected the row as it is on the source, and it is parked (see `parked`). Else absent. */
  readonly parked?: true;
}

export interface PartDifferences {
  /** How many there are. */
  readonly total: number;
  /** Those of rows that the target has rejected. */
  readonly parked: number;
  readonly listed: readonly Difference[];
  /** Keys recorded as changed on the source, so that the next batch brings them. */
  readonly repaired: number;
  /** Of a table without a key: rows that one side has more of; a changed row counts on either side. */
  readonly unpaired?: Unpaired;
}

export interface Unpaired {
  readonly missing: number;
  readonly extra: number;
}

export interface DrillRequest {
  readonly sync: string;
  readonly plan: TablePlan;
  /** Conditions on the rows of the part, for either side. */
  readonly conditions: { readonly source: readonly string[]; readonly target: readonly string[] };
  readonly checksum: Checksum;
  readonly signal: AbortSignal;
  /** Rows of the part. */
  readonly rows: number;
  readonly maxListed: () => number;
  readonly repair: boolean;
  /** The target has changes of its own, see `recordDifferences`. */
  readonly tracksTarget: boolean;
}
