/** What the servers say about themselves before their schemas are looked at. */
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";
import type { Extension } from "./plan.ts";
import { isNamed, providerOf, type SchemaOwner } from "../catalog/providers.ts";

/** As sql/schema/source returns it. */
export interface SourceFacts {
  readonly encoding: string;
  readonly role: string;
  readonly schemas: readonly SchemaOwner[];
  readonly extensions: readonly Extension[];
  readonly subscriptions: readonly string[];
  readonly tablespaces: readonly { readonly name: string; readonly relations: number }[];
}

/** As sql/schema/target returns it. */
export interface TargetFacts {
  readonly extensions: readonly Extension[];
  readonly hasLedger: boolean;
}

export async function readSourceFacts(source: Connection): Promise<SourceFacts> {
  return await source.row<SourceFacts>(load("schema/source"));
}

/** A table or sequence that pg_dump would stop at, as sql/schema/unreadable returns it. */
export interface Unreadable {
  readonly oid: number;
  readonly schema: string;
  readonly name: string;
  readonly owner: string;
  /** `S` is a sequence. */
  readonly kind: string;
}

/** Our own schema, and those of a provider unless an extension lives there whose types the tables may use. */
export function schemasLeftOut(facts: SourceFacts, config: ResolvedConfig): Map<string, string | null> {
  const leftOut = new Map<string, string | null>([["replicate", null]]);
  for (const schema of facts.schemas) {
    const provider = providerOf(schema, facts.role);
    const isAsked = isNamed(schema.name, config.tables);
    const isHome =
      schema.name === "heroku_ext" && facts.extensions.some((each) => each.schema === schema.name);
    if (provider !== undefined && !isAsked && !isHome) leftOut.set(schema.name, `belongs to ${provider}`);
  }
  return leftOut;
}
