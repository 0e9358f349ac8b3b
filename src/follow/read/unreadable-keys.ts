/**
 * Keys that were recorded and cannot be read any more, or that the target has no place for: their tables are read again as a
 * whole, by keys that can be read, so that no sync stands still because of a key that is not there any more.
 */
import { mendKeys, UNREADABLE } from "../../capture/unreadable-keys.ts";
import { recordRereadNow } from "../../capture/record-changes.ts";
import { isKeyless } from "../../catalog/delta.ts";
import { fromSql } from "../../catalog/table.ts";
import { outputText } from "../../catalog/text-form.ts";
import { ReplicateError } from "../../errors.ts";
import { saidBy, stageIn, withoutValues } from "../../postgres/server-words.ts";
import { ident } from "../../postgres/sql.ts";
import { isRejection, sqlstateOf } from "../../postgres/sqlstate.ts";
import { stagingOf } from "../apply/rejection.ts";
import type { SessionParts } from "../session-parts.ts";
import type { Shape } from "../shape.ts";

/** character_not_in_repertoire, untranslatable_character: such a row cannot even come as text. */
const ENCODING = ["22021", "22P05"];

/** Whether a row could not be staged because of its key, as far as the error tells. */
export function isAboutKey(error: unknown): boolean {
  if (!isRejection(error) || stagingOf(error) === undefined) return false;
  const stage = stageIn((error as { where?: string }).where);
  return ENCODING.includes(sqlstateOf(error) ?? "") || / k\d+$/.test(stage ?? "");
}

export class UnreadableKeys {
  readonly #parts: SessionParts;
  /** Captures whose tables are read again because of such a key, until a batch is applied. */
  readonly #rereading = new Set<number>();

  constructor(parts: SessionParts) {
    this.#parts = parts;
  }

  /** A batch was applied. */
  applied(): void {
    this.#rereading.clear();
  }

  /** Has tables read again where that may help after the failure of a batch. Returns whether to try again. */
  async mend(failure: unknown): Promise<boolean> {
    const { context, source, target, tables } = this.#parts;
    const error = failure instanceof ReplicateError ? (failure.cause ?? failure) : failure;
    if (!isRejection(error) || source.isBroken || target.isBroken) return false;
    await source.script("rollback");
    const staging = stagingOf(error);
    if (staging !== undefined) {
      const shape = tables.shape(staging.captureId);
      if (shape === undefined || !isAboutKey(error) || isKeyless(shape.capture)) return false;
      if (this.#rereading.has(shape.capture.id)) throw rejectedKey(shape, error);
      this.#rereading.add(shape.capture.id);
      await recordRereadNow(source, shape.capture);
      const reason = "a key that has changed cannot be read on the target";
      context.emit({ type: "table-reread", table: shape.label, reason });
      return true;
    }
    let mended = 0;
    for (const shape of tables.shapes) {
      const { label, reverse } = shape;
      const rows = (await mendKeys(source, shape.capture)) + (await this.#mendReverse(shape));
      mended += rows;
      const reason = `${UNREADABLE}${reverse === undefined ? "" : "; rows that differ are settled as conflicts"}`;
      if (rows > 0) context.emit({ type: "table-reread", table: label, reason });
    }
    if (mended > 0 || !ENCODING.includes(sqlstateOf(error) ?? "")) return mended > 0;
    throw await this.#unreadableRow(error);
  }

  /**
   * The same for keys that were changed on the target. Nothing but a comparison of all rows settles them where nobody brings
   * them back: it is ordered before they are forgotten.
   */
  async #mendReverse({ capture, reverse }: Shape): Promise<number> {
    const { source, target } = this.#parts;
    if (reverse === undefined) return 0;
    await target.script("rollback");
    return await target.transaction(async () => {
      const rows = await mendKeys(target, reverse.capture);
      if (rows > 0 && this.#parts.otherSide?.isLone === true) await recordRereadNow(source, capture);
      return rows;
    });
  }

  /** Names the tables whose rows the source cannot send. */
  async #unreadableRow(error: unknown): Promise<unknown> {
    const { source, tables } = this.#parts;
    const labels: string[] = [];
    for (const { label, source: table } of tables.shapes) {
      const columns = table.columns
        .filter(({ generated, mapped }) => generated === "" && mapped === undefined)
        .map(({ name }) => `pg_catalog.textsend(${outputText(`t.${ident(name)}`)})`);
      if (columns.length === 0) continue;
      await source
        .rows(`select pg_catalog.count(row(${columns.join(", ")})) from ${fromSql(table)} as t`)
        .catch(() => labels.push(label));
    }
    if (labels.length === 0) return error;
    const sqlstate = sqlstateOf(error) ?? "";
    return new ReplicateError(
      "ROW_REFUSED",
      `a row of ${labels.join(", ")} cannot be read on the source: ${error instanceof Error ? error.message : String(error)} [${sqlstate}]`,
      { side: "source", cause: error, sqlstate, hint: REPAIR_BYTES },
    );
  }
}

const REPAIR_BYTES =
  "Repair the row on the source: it has bytes that are no text in the encoding of the target. Then start again: the table is read again as a whole.";

function rejectedKey({ label, capture }: Shape, error: unknown): ReplicateError {
  const key = capture.keyColumns.map(({ name }) => name).join(", ");
  const sqlstate = sqlstateOf(error) ?? "";
  return new ReplicateError(
    "ROW_REFUSED",
    `the target cannot take in a row of ${label} (key: ${key}): ${saidBy(error)} [${sqlstate}]`,
    {
      side: "target",
      cause: withoutValues(error),
      sqlstate,
      hint: ENCODING.includes(sqlstate)
        ? REPAIR_BYTES
        : "Give the target's column a type that has a place for the value, or repair the row on the source; then start again.",
    },
  );
}
