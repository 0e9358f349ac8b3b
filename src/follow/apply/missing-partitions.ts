/** Rows that the target rejects because it has no partition for them: which of the source's it lacks, and the statements. */
import { ReplicateError, type Problem } from "../../errors.ts";
import { tableLabel, tableSql } from "../../catalog/table.ts";
import type { Connection } from "../../postgres/connect.ts";
import { load } from "../../postgres/sql.ts";
import type { Shape } from "../shape.ts";

/** Of a row without a partition, and of a violated check, which is named then. */
const CHECK_VIOLATION = "23514";

interface PartitionDefinition {
  readonly schema: string;
  readonly name: string;
  readonly parentSchema: string;
  readonly parentName: string;
  readonly isOfRoot: boolean;
  readonly definition: string;
}

/** The error with the partitions that are missing, where it is about that; any other as it is. */
export async function namePartitions(
  error: unknown,
  source: Connection,
  target: Connection,
  shapes: readonly Shape[],
): Promise<unknown> {
  if (!(error instanceof ReplicateError) || error.code !== "ROW_REFUSED") return error;
  const { code, constraint, schema, table } = (error.cause ?? {}) as Record<string, unknown>;
  if (code !== CHECK_VIOLATION || constraint !== undefined || source.isBroken || target.isBroken)
    return error;
  const isMeant = ({ target: to }: Shape): boolean =>
    to.kind === "p" && (table === undefined || (to.schema === schema && to.name === table) || to.leaves.some((leaf) => leaf.name === table)); // prettier-ignore
  const problems: Problem[] = [];
  for (const shape of shapes.filter((each) => each.source.kind === "p" && isMeant(each)))
    problems.push(...(await missingPartitions(shape, source, target)));
  if (problems.length === 0) return error;
  return new ReplicateError("ROW_REFUSED", error.message, {
    cause: error.cause,
    problems,
    hint: "Run the statements on the target, in their order, then start again: it goes on from where it stopped.",
  });
}

async function missingPartitions(shape: Shape, source: Connection, target: Connection): Promise<Problem[]> {
  const all = await source.rows<PartitionDefinition>(load("catalog/partition-definitions"), [
    shape.source.oid,
  ]);
  const names = all.map(tableSql);
  const there = new Set(
    (
      await target.rows<{ name: string }>(
        `select x.name from pg_catalog.unnest($1::text[]) as x (name) where pg_catalog.to_regclass(x.name) is not null`,
        [names],
      )
    ).map(({ name }) => name),
  );
  return all
    .filter((each) => !there.has(tableSql(each)))
    .map((each) => {
      const parent = each.isOfRoot ? shape.target : { schema: each.parentSchema, name: each.parentName };
      return {
        subject: shape.label,
        message: `its partition ${tableLabel(each)} is missing on the target`,
        remedy: `create table ${tableSql(each)} partition of ${tableSql(parent)} ${each.definition};`,
      };
    });
}
