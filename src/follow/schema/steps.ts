/** The statements that a change of a table comes to on the target, and from what they are found. */
import type { TableDefinition } from "../../catalog/table-definition.ts";

export interface Travel {
  /** The source's table when the target's was made of it. */
  readonly before: TableDefinition;
  readonly now: TableDefinition;
  readonly target: TableDefinition;
  /** Of the target's server. */
  readonly version: number;
  /** The numbers that the target's columns had then, by name. */
  readonly targetNumbers: ReadonlyMap<string, number>;
  /** Values that all rows of the source from before have in columns added since, see sql/catalog/missing-values. */
  readonly missing: ReadonlyMap<string, { readonly text: string; readonly array: string }>;
  /** Statements that are still to be run outside of a batch. */
  readonly deferred: ReadonlySet<string>;
  readonly ledger: Ledger;
  /** Tables that foreign keys lead to and that the target lacks; `joining`: they are new, and about to come. */
  readonly lacking: ReadonlyMap<string, "joining" | "foreign">;
  /** Columns by which rows are told apart, as they are called now. */
  readonly keyColumns: readonly string[];
}

/** What was taken away from the target's table until the end, see `replicate.deferred`. */
export interface Ledger {
  readonly sync: string;
  readonly captureId: number;
  /** `foreign-key name`, `check name`. */
  readonly away: ReadonlySet<string>;
  /** Foreign keys would act on replicated rows here: they stay away until the end. */
  readonly keepsForeignKeys: boolean;
}

/** A statement for the target. */
export interface Step {
  /** It changes what is to be restored at the end, and nothing that anybody sees. */
  readonly isLedger?: true;
  /** The rows of the batch are written in between. later: once the batch is committed, outside of a transaction. */
  readonly when: "before" | "after" | "later";
  /** The order in which the statements of all tables are run. */
  readonly rank: number;
  readonly sql: string;
}

export const rank = {
  ledger: 5,
  dropForeignKey: 10,
  dropConstraint: 20,
  dropIndex: 25,
  renameConstraint: 30,
  drop: 40,
  rename: 45,
  sequence: 50,
  change: 55,
  default: 60,
  owner: 65,
  mark: 70,
  notNull: 110,
  identity: 115,
  key: 120,
  check: 125,
  foreignKey: 130,
  validate: 135,
  comment: 140,
  index: 200,
} as const;

/** Those of several tables. */
export function inOrder<S extends Step>(steps: readonly S[]): S[] {
  return steps.toSorted((one, other) => one.rank - other.rank);
}
