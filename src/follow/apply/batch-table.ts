/** One table of a batch. */
import type { KeyTexts } from "../conflicts/pending-keys.ts";
import type { TableMode } from "../read/table-mode.ts";
import type { Shape } from "../shape.ts";

export interface BatchTable {
  readonly shape: Shape;
  readonly mode: TableMode;
  /** The fingerprint that was checked in the batch's snapshot. */
  readonly fingerprint: string;
  /** Its rows go through the hook. */
  readonly isTransformed?: boolean;
  /** Where the whole table is read: keys that stay as they are, see `leavePendingSql`. */
  readonly kept?: readonly KeyTexts[];
  /** Where it was emptied by a TRUNCATE: when, if that is known. */
  readonly emptiedAt?: string | null;
}
