/** What a session knows of the other side where that changes by itself, and conflicts have to be found. */
import type { ConflictPolicy } from "../../config/conflict-policy.ts";
import type { Sides } from "./sides.ts";
import type { Shape } from "../shape.ts";

export interface OtherSide extends Omit<Sides, "delivered"> {
  /** Name of the sync that reads the changes of the side that is applied to. */
  readonly sync: string;
  /** How far that sync has brought them over; null: not at all. */
  readonly delivered: () => string | null;
  readonly policyOf: (shape: Shape) => ConflictPolicy;
}
