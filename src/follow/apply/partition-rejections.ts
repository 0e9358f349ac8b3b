/** Rows that the target has no partition for: not a matter of the row, but of the target's shape. */
import { goneBounds, missingPartitions } from "../../catalog/missing-partitions.ts";
import { tableLabel } from "../../catalog/table.ts";
import { ReplicateError } from "../../errors.ts";
import { lacksPartition } from "../../postgres/sqlstate.ts";
import type { Shape } from "../shape.ts";

/** TABLE_SHAPE_CHANGED with the statements that make the partitions where they are lacking, any other error as it is. */
export function partitionRejection(error: unknown, shapes: readonly Shape[]): unknown {
  const cause = error instanceof ReplicateError ? error.cause : error;
  if (!lacksPartition(cause)) return error;
  const { message, detail, schema, table } = cause as Error &
    Partial<Record<"detail" | "schema" | "table", string>>;
  const shape = shapes.find(({ target }) =>
    [target, ...target.leaves.flatMap(({ path }) => path)].some(
      (each) => each.schema === schema && each.name === table,
    ),
  );
  const label =
    shape?.label ?? (table === undefined ? "a table" : tableLabel({ schema: schema ?? "", name: table }));
  return new ReplicateError(
    "TABLE_SHAPE_CHANGED",
    `the target has no partition of ${label} for a row: ${message}${detail === undefined ? "" : ` (${detail})`}`,
    {
      side: "target",
      cause,
      problems: (shape === undefined ? [] : lackedBy(shape)).map(({ subject, message: what, remedy }) => ({
        subject,
        message: what,
        remedy,
      })),
      hint: "Create the partition on the target, then start again: it goes on by itself.",
    },
  );
}

/** What a followed table lacks on the target. */
export function lackedBy({
  source,
  target,
  entry,
}: Pick<Shape, "source" | "target" | "entry">): ReturnType<typeof missingPartitions> {
  return missingPartitions(source, target, goneBounds(entry));
}
