/** An object of a schema, and what differs between the sides. */

/** A row of sql/schema/describe. */
export interface Description {
  readonly kind: string;
  readonly name: string;
  readonly schema: string | null;
  readonly relation: string | null;
  readonly details: Readonly<Record<string, unknown>>;
}

export interface SchemaDifference {
  /** `index public.users_email` */
  readonly object: string;
  /** On the target. */
  readonly kind: "missing" | "extra" | "changed";
  /** What is changed: the property, and its value on each side. */
  readonly changes: readonly {
    readonly property: string;
    readonly source: string | null;
    readonly target: string | null;
  }[];
  /** The table or view that it is, or is on; null where it is on none. Quoted where needed. */
  readonly relation: string | null;
  /** SQL for the target that makes it as it is on the source; null where it takes more than a statement. */
  readonly remedy: string | null;
}
