/**
 * Rows that could not be staged as the target's types: they are read again, come as text, and are staged one by one by
 * `ParkedRows`.
 */
import type { Connection } from "../../postgres/connect.ts";
import type { BatchTable } from "./batch-table.ts";
import { copyInSql } from "../read/carry-rows.ts";
import { stageColumns, type StageColumn } from "./find-rejected.ts";
import type { Shape } from "../shape.ts";
import { isStaged, type TableMode } from "../read/table-mode.ts";

/** Thrown when rows cannot even be staged: the batch has to be read again, with this table's rows as text. */
export class RestageSignal extends Error {
  override readonly name = "RestageSignal";
  readonly captureId: number;
  constructor(captureId: number) {
    super("rows have to be staged as text");
    this.captureId = captureId;
  }
}

/** Where the rows of a table come as text. */
export interface TextStage {
  readonly name: string;
  readonly columns: readonly StageColumn[];
}

export class TextStaging {
  /** By capture, until its rows could be applied. */
  readonly #columns = new Map<number, readonly StageColumn[]>();

  /** Has the table's rows come as text with the next batch. */
  async begin(target: Connection, { captureId }: RestageSignal, shape: Shape): Promise<void> {
    this.#columns.set(captureId, await stageColumns(target, shape));
  }

  /** The shape in which rows of the table are read. */
  readingShape(shape: Shape): Shape {
    return this.#columns.has(shape.capture.id) ? { ...shape, plan: { ...shape.plan, binary: false } } : shape;
  }

  /** Undefined where the table's rows come as they are. */
  stageOf({ shape, mode }: Pick<BatchTable, "shape" | "mode">): TextStage | undefined {
    const columns = this.#columns.get(shape.capture.id);
    if (columns === undefined || !isStaged(mode)) return undefined;
    return { name: `stage_${shape.capture.id}_text`, columns };
  }

  /** Takes in the rows of a table that a batch reads. */
  copyInSql(shape: Shape, mode: TableMode): string {
    const stage = this.stageOf({ shape, mode });
    if (stage === undefined) return copyInSql(shape, mode);
    const { name, columns } = stage;
    const list = columns.map((column) => column.name);
    return `create temporary table ${name} (n bigint generated always as identity, ${list.map((each) => `${each} text`).join(", ")}) on commit drop;
      copy pg_temp.${name} (${list.join(", ")}) from stdin`;
  }

  /** Whether rows of the batch have come as text. */
  isIn(tables: readonly BatchTable[]): boolean {
    return tables.some((table) => this.stageOf(table) !== undefined);
  }

  /** They were applied. */
  end(): void {
    this.#columns.clear();
  }
}
