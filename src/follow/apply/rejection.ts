/** What an error says of the row that the target has rejected. */
import { ReplicateError } from "../../errors.ts";
import { isUnknownLabel, saidBy, withoutValues } from "../../postgres/server-words.ts";
import { isRejection, sqlstateOf } from "../../postgres/sqlstate.ts";
import type { Shape } from "../shape.ts";

interface ServerError {
  readonly schema?: string;
  readonly table?: string;
  /** What the server was at: for a COPY, the table and the line. */
  readonly where?: string;
}

/** ROW_REFUSED for such an error, any other as it is. */
export function rejected(error: unknown): unknown {
  if (!isRejection(error)) return error;
  const { schema, table } = error as ServerError;
  const where = table === undefined ? "" : ` in ${schema}.${table}`;
  return new ReplicateError("ROW_REFUSED", `the target rejected a row${where}: ${saidBy(error)}`, {
    side: "target",
    cause: withoutValues(error),
    ...(sqlstateOf(error) === undefined ? {} : { sqlstate: sqlstateOf(error) as string }),
    ...(isUnknownLabel(error)
      ? { hint: "Add the new value to the type on the target: alter type … add value …; then start again." }
      : {}),
  });
}

/** Where the error came while rows were put into staging: whose, and whether that takes them as text already. */
export function stagingOf(
  error: unknown,
): { readonly captureId: number; readonly isText: boolean } | undefined {
  const found = /\bstage_(\d+)(_text)?\b/.exec((error as Partial<ServerError>).where ?? "");
  return found === null ? undefined : { captureId: Number(found[1]), isText: found[2] !== undefined };
}

/** Whether the error names the table or one of its partitions. */
export function isAbout(error: unknown, shape: Shape): boolean {
  const { schema, table } = error as { schema?: string; table?: string };
  return (
    (schema === shape.target.schema && table === shape.target.name) ||
    shape.target.leaves.some((leaf) => leaf.schema === schema && leaf.name === table)
  );
}
