/**
 * Repair: differing keys are recorded as changed on the source, so that the next batch brings them like any other. Where the
 * target has changes of its own they are recorded as disputed: the batch meets what is there as a conflict.
 */
import { deltaColumns, deltaTables, DISPUTED, recorded } from "../catalog/delta.ts";
import { fromText, toText } from "../catalog/text-form.ts";
import type { Connection } from "../postgres/connect.ts";
import { throwIfAborted } from "../postgres/sleep.ts";
import { eachKeySql, keyParametersSql } from "./key-sql.ts";
import type { TablePlan } from "./plan.ts";
import type { SessionPair } from "./session-pair.ts";

/**
 * Temporary table on the target: s1 … sn, the key on the source; t1 … tn, the key on the target, both in the target's
 * types and null where there is no such row; kind.
 */
export const DIFFERENCES = "pg_temp.replicate_difference";

const KEYS_PER_INSERT = 2000;

/**
 * A repair broke off: some keys are recorded and some are not. To compare again would count those that are recorded as
 * pending, so this is not tried again behind the caller's back.
 */
export class RepairError extends Error {
  override readonly name = "RepairError";

  constructor(cause: unknown) {
    super("the repair broke off", { cause });
  }
}

/**
 * Notes all differences in the active delta table of the capture. Ends both transactions first; the deltas are
 * committed insert by insert. Returns the number of keys. Throws RepairError.
 */
export async function recordDifferences(
  pair: SessionPair,
  plan: TablePlan,
  isDisputed: boolean,
  signal: AbortSignal,
): Promise<number> {
  try {
    return await note(pair, plan, isDisputed, signal);
  } catch (error) {
    throw new RepairError(error);
  }
}

async function note(
  pair: SessionPair,
  plan: TablePlan,
  isDisputed: boolean,
  signal: AbortSignal,
): Promise<number> {
  const { source, target } = pair;
  const { id, keyColumns } = plan.capture;
  // Bytes of no known encoding are no text of JavaScript's.
  const isRaw = (await Promise.all([source, target].map(hasBytes))).every((each) => each);
  const shown = (text: string): string =>
    isRaw ? `pg_catalog.encode(pg_catalog.textsend(${text}), 'hex')` : text;
  const read = (text: string): string =>
    isRaw ? `pg_catalog.convert_from(pg_catalog.decode(${text}, 'hex'), 'SQL_ASCII')` : text;
  await target.script(
    `declare replicate_keys no scroll cursor with hold for
     select ${eachKeySql(plan.target.key, (n, { type }) => shown(toText(`coalesce(d.s${n}, d.t${n})`, type)))} from ${DIFFERENCES} as d`,
  );
  // From here on nobody has to wait for our locks, however long this takes.
  await Promise.all([source.script("commit"), target.script("commit")]);
  const columns = [...deltaColumns(plan.capture), ...(isDisputed ? ["op"] : [])].join(", ");
  // Through the column's own type, so that a key which only the target's type can hold fails here and not in `follow`.
  const values = keyColumns
    .map((column, index) => recorded(column, fromText(read(`x.k${index + 1}`), column.readType)))
    .join(", ");
  for (let recorded = 0; ;) {
    throwIfAborted(signal);
    const { rows } = await target.client.query<string[]>({
      rowMode: "array",
      text: `fetch ${KEYS_PER_INSERT} from replicate_keys`,
    });
    if (rows.length === 0) {
      await target.script("close replicate_keys");
      return recorded;
    }
    const { active } = await source.row<{ active: "a" | "b" }>(
      `select active from replicate.capture where id = $1`,
      [id],
    );
    await source.rows(
      `insert into ${deltaTables(id)[active === "a" ? 0 : 1]} (${columns})
       select ${values}${isDisputed ? `, '${DISPUTED}'` : ""} from ${keyParametersSql(plan.source.key)}`,
      plan.source.key.map((_, column) => rows.map((row) => row[column])),
    );
    recorded += rows.length;
  }
}

async function hasBytes(connection: Connection): Promise<boolean> {
  const { isRaw } = await connection.row<{ isRaw: boolean }>(
    `select pg_catalog.current_setting('server_encoding') operator(pg_catalog.=) 'SQL_ASCII'::pg_catalog.text as "isRaw"`,
  );
  return isRaw;
}
