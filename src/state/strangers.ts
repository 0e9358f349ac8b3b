/** Whether schema replicate is ours alone: what others have put there would run with our rights. */
import { ReplicateError } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { load } from "../postgres/sql.ts";

/** Throws STATE_NOT_OURS with all that others have there, or could put there. Where there is no such schema, all is well. */
export async function assertNoStrangers(connection: Connection, label: string): Promise<void> {
  const found = await connection.rows<{ object: string; problem: string; remedy: string }>(
    load("state/strangers"),
  );
  if (found.length === 0) return;
  const [first] = found;
  throw new ReplicateError(
    "STATE_NOT_OURS",
    `others have a hand in schema replicate of ${label}: ${first?.object} ${first?.problem}`,
    {
      problems: found.map(({ object, problem, remedy }) => ({
        subject: `${label}: ${object}`,
        message: problem,
        remedy,
      })),
    },
  );
}
