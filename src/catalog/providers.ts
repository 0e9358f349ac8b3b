/** Schemas that a provider puts into its customers' databases, and that mean nothing anywhere else. */

import { patternMatches } from "./patterns.ts";

export interface SchemaOwner {
  readonly name: string;
  readonly owner: string;
  /** The session's role has no rights of the owner. */
  readonly isForeign: boolean;
}

const providerSchemas: readonly (readonly [name: RegExp, provider: string])[] = [
  [/^(heroku_ext|_heroku)$/, "Heroku"],
  [/^(rdsadmin|rds_tools|apg_plan_mgmt)$/, "Amazon RDS"],
  [
    /^(auth|storage|realtime|_realtime|_analytics|graphql|graphql_public|vault|net|cron|pgbouncer|pgsodium|pgsodium_masks|supabase_\w+)$/,
    "Supabase",
  ],
  [/^(google_ml|ai|helpobj|perfsnap)$/, "AlloyDB"],
  [/^(azure|azure_\w+)$/, "Azure"],
  [/^(_timescaledb_\w+|timescaledb_\w+)$/, "Timescale"],
];

const providerRole =
  /^(supabase\w*|rds\w*|cloudsql\w*|alloydb\w*|azure\w*|azuresu|heroku\w*|tsdbadmin|neon\w*|postgres)$/;

/**
 * The provider's name where the schema is one of its own, otherwise undefined. A name alone proves nothing, since
 * customers too call their schemas `auth` or `storage`: the owner has to be somebody else, too.
 */
export function providerOf(schema: SchemaOwner, role: string): string | undefined {
  const [, provider] = providerSchemas.find(([name]) => name.test(schema.name)) ?? [];
  const isOfProvider = schema.owner !== role && (schema.isForeign || providerRole.test(schema.owner));
  return isOfProvider ? provider : undefined;
}

/** What a query of relations says of the schema that one is in. */
export interface InSchema {
  readonly schema: string;
  readonly schemaOwner: string;
  /** The session's role has no rights of the schema's owner. */
  readonly isForeignSchema: boolean;
  /** The session's. */
  readonly role: string;
}

/** The provider whose schema a relation is in; undefined where it is in none, or where patterns name the schema. */
export function providersSchema(
  { schema, schemaOwner, isForeignSchema, role }: InSchema,
  patterns: readonly string[],
): string | undefined {
  if (isNamed(schema, patterns)) return undefined;
  return providerOf({ name: schema, owner: schemaOwner, isForeign: isForeignSchema }, role);
}

/** Whether patterns of tables name a schema. */
export function isNamed(schema: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) => patternMatches(pattern, schema, "") || pattern.startsWith(`${schema}.`));
}

/** A role that a provider works with: none of the application's. */
export function isProviderRole(name: string): boolean {
  return providerRole.test(name);
}
