/** What changed on the source besides rows: columns, keys, triggers, partitions. Noticed before rows are read. */
import { captureByRow } from "../../capture/by-row.ts";
import { lockCapture } from "../../capture/lock-capture.ts";
import { triggerNames } from "../../capture/triggers.ts";
import { adoptLeaf, releaseLeaf } from "../../capture/partitions.ts";
import { functionSql } from "../../capture/trigger-function.ts";
import { isEmptied, recordReread } from "../../capture/record-changes.ts";
import {
  deltaTables,
  loadCaptures,
  recordedType,
  type Capture,
  type CaptureKeyColumn,
} from "../../catalog/delta.ts";
import { parseFingerprint, type Fingerprint } from "../../catalog/fingerprint.ts";
import { mapTables } from "../../catalog/mapping.ts";
import { readMemberships } from "../../catalog/memberships.ts";
import { describeTables, tableLabel, tableSql, type Table } from "../../catalog/table.ts";
import { ReplicateError, type Problem } from "../../errors.ts";
import type { Connection } from "../../postgres/connect.ts";
import { withBriefLocks } from "../../postgres/lock.ts";
import type { SyncContext } from "../../state/context.ts";
import type { SyncTable } from "../../state/sync-table.ts";
import { hasSameRows, isSameForm } from "./old-rows.ts";
import type { Partition } from "./read-batch.ts";
import type { Shape } from "../shape.ts";

/** See catalog/fingerprint. */
const PASSED_BY = "P";

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);

/** True when nothing changed that matters for reading rows, and the capture can be trusted. */
export function isSameShape(known: string, found: string): boolean {
  const b = parseFingerprint(found);
  if (b.triggers.length === 0 || b.triggers.some(([, enabled]) => enabled !== "A")) return false;
  if (known === found) return true;
  const a = parseFingerprint(known);
  return (
    isSameForm(a, b) && same(a.triggers, b.triggers) && same(a.keys, b.keys) && a.definition === b.definition
  );
}

/**
 * True where rows can be read and none was missed or given another value, whatever else ALTER TABLE did: nothing that a batch
 * has to wait for. What else there is to say of it, the next sweep finds.
 */
export function isSameToReaders(known: string, found: string): boolean {
  if (isSameShape(known, found)) return true;
  const [a, b] = [parseFingerprint(known), parseFingerprint(found)];
  const areTriggersOn = b.triggers.length > 0 && b.triggers.every(([, enabled]) => enabled === "A");
  return (
    areTriggersOn &&
    hasSameRows(a, b) &&
    same(a.triggers, b.triggers) &&
    same(a.keys, b.keys) &&
    (b.touched === null || same(a.touched, b.touched))
  );
}

/**
 * Settles what concerns the capture of a table whose fingerprint is not the one we know. Returns why the table has to be read
 * again, if changes may have been missed. Throws CAPTURE_BROKEN and TABLE_SHAPE_CHANGED with the statement to run.
 */
export async function settleSchemaChange(
  context: SyncContext,
  source: Connection,
  shape: Shape,
  known: string,
  found: string,
): Promise<string | undefined> {
  const { label, target } = shape;
  const captureId = shape.capture.id;
  const before = parseFingerprint(known);
  const now = parseFingerprint(found);
  const [capture] = await loadCaptures(source, [captureId]);
  if (capture === undefined) throw new ReplicateError("CAPTURE_BROKEN", `the capture of ${label} is gone`);
  const [described] = await describeTables(source, [capture.relid]);
  if (described === undefined) return undefined;
  const [mapped] = await mapTables(source, [{ source: described, target, mapping: shape.entry.mapping }]);
  const table = mapped?.source ?? described;

  if (now.triggers.some(([, state]) => state === PASSED_BY)) {
    await captureByRow(context, source, capture, table);
    return "statements on another table, or a subscription, write to it as well: its changes are captured row by row from now on";
  }
  const problems: Problem[] = [];
  for (const name of triggerNames(capture, table, source.version)) {
    const trigger = now.triggers.find(([each]) => each === name);
    if (trigger?.[1] === "A") continue;
    problems.push({
      subject: label,
      message: `trigger ${name} is ${trigger === undefined ? "gone" : "disabled"}: changes are not captured`,
      remedy:
        trigger === undefined
          ? `create trigger ${name} …;  -- run \`replicate drop\` and \`replicate init\`: the table has to be copied again`
          : `alter table ${tableSql(table)} enable always trigger ${name};`,
    });
  }
  if (problems.length > 0) {
    throw new ReplicateError("CAPTURE_BROKEN", `${label} is not captured any more`, {
      problems,
      hint: "Run the statement on the source, then start again: the table will be read again as a whole.",
    });
  }

  const captured = capture.keyColumns.map((column) => String(column.attnum)).sort();
  // On version 10 the key of a partitioned table lies in its leaves alone.
  const current = table.key?.columns.map((column) => String(column.attnum)).sort();
  if (
    captured.length > 0 &&
    !same(current, captured) &&
    !now.keys.some((key) => same(key.split(" ").sort(), captured))
  ) {
    const names = capture.keyColumns.map((column) => column.name).join(", ");
    throw new ReplicateError("TABLE_SHAPE_CHANGED", `the key of ${label} changed`, {
      problems: [
        {
          subject: label,
          message: `there is no unique index on (${names}) any more, by which its rows are replicated`,
          remedy: `create unique index on ${tableSql(table)} (${names});  -- on the source`,
        },
      ],
      hint: `Or take the table out and in again: replicate drop, then init and copy with the new key.`,
    });
  }
  if (!same(before.columns, now.columns)) {
    await refreshKey(context, source, capture, table);
  }
  if (!same(before.triggers, now.triggers)) return "its capture was off for a while";
  if (capture.method === "statement" && isTouched(before, now))
    return "statements on another table may have written to it as well, which its capture per statement does not see";
  const isKeyRetyped = capture.keyColumns.some(({ attnum, deltaType }) => {
    const [was, is] = [before, now].map(({ columns }) => columns.find((column) => column[0] === attnum));
    return deltaType !== "text" && was?.[2] !== is?.[2];
  });
  return isKeyRetyped ? "open sessions may have noted its key in the old type" : undefined;
}

/**
 * Whether a column's row in the catalogue was written. A parent or a partitioned table that a table has had for a moment
 * leaves nothing else behind, and neither differs from what other commands leave there; a column that is new may be left out.
 */
function isTouched(before: Fingerprint, now: Fingerprint): boolean {
  if (before.touched == null) return before.rows?.versions !== now.rows?.versions;
  return Object.entries(before.touched).some(([attnum, writer]) => now.touched?.[attnum] !== writer);
}

/**
 * The trigger function names the key's columns, and deltas are recorded and read in their types: all follow the table.
 * A column that is recorded in its own type gets another place in the delta tables when it is retyped. The old place
 * stays, for those who are in the old function at this moment; what they note is part of the re-read.
 */
async function refreshKey(
  context: SyncContext,
  source: Connection,
  capture: Capture,
  table: Table,
): Promise<void> {
  const added: string[] = [];
  const keyColumns = capture.keyColumns.map((key, index): CaptureKeyColumn => {
    const column = table.columns.find((each) => each.attnum === key.attnum);
    if (column === undefined) return key;
    const equals = table.key?.columns.find((each) => each.attnum === key.attnum)?.equals ?? key.equals;
    const found = {
      ...key,
      name: column.name,
      readType: column.baseType,
      typeOid: column.typeOid,
      collation: column.collation,
      equals,
    };
    if (key.deltaType === "text" || key.readType === column.baseType) return found;
    const [place = `k${index + 1}`, times = "1"] = (key.deltaColumn ?? "").split("_").filter(Boolean);
    const deltaColumn = `${place}_${Number(times) + 1}`;
    const deltaType = recordedType(column);
    const collation = column.collation === null ? "" : ` collate ${column.collation}`;
    added.push(`add column ${deltaColumn} ${deltaType}${deltaType === column.baseType ? collation : ""}`);
    return { ...found, deltaColumn, deltaType };
  });
  await withBriefLocks(source, { what: tableLabel(table), signal: context.signal }, async () => {
    // Another sync may rotate the same capture, or have settled the same change.
    await lockCapture(source, capture.id);
    const [current] = await loadCaptures(source, [capture.id]);
    if (current === undefined || !same(current.keyColumns, capture.keyColumns)) return;
    if (added.length > 0) {
      for (const delta of deltaTables(capture.id))
        await source.script(`alter table ${delta} ${added.join(", ")}`);
    }
    if (!same(keyColumns, capture.keyColumns)) {
      await source.rows(`update replicate.capture set key_columns = $2 where id = $1`, [
        capture.id,
        JSON.stringify(keyColumns),
      ]);
    }
    // Also after a mere change of length: open sessions have the old type in their plans until the function changes.
    await source.script(functionSql({ ...current, keyColumns }));
  });
}

/** True when these are the leaves that the ledger knows, and each is captured as it was. */
export function arePartitionsKnown(entry: SyncTable, found: readonly Partition[]): boolean {
  const known = Object.entries(entry.partitions).filter(([, leaf]) => leaf.isGone !== true);
  return (
    found.length === known.length &&
    found.every((leaf) => {
      const twin = entry.partitions[leaf.oid];
      // A ledger of an earlier version does not have the memberships.
      return (
        leaf.isCaptured &&
        twin !== undefined &&
        twin.isGone !== true &&
        twin.triggers === leaf.triggers &&
        twin.membership !== undefined
      );
    })
  );
}

/**
 * Settles the differences between a root's partitions and those known: takes new ones in, empties those that are gone,
 * and has the table read again where a partition was not captured for a while. `remember` stores the new map. Throws
 * CAPTURE_BROKEN with the statement to run where one is not captured now.
 */
export async function settlePartitions(
  context: SyncContext,
  source: Connection,
  entry: SyncTable,
  found: readonly Partition[],
  remember: (partitions: SyncTable["partitions"]) => Promise<void>,
): Promise<void> {
  const [capture] = await loadCaptures(source, [entry.captureId]);
  if (capture === undefined) return;
  const label = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
  const partitions = { ...entry.partitions };
  const memberships = new Map(
    (await readMemberships(source, [entry.sourceRelid])).map((leaf) => [leaf.oid, leaf.membership]),
  );
  const problems: Problem[] = [];
  for (const leaf of found) {
    const known = partitions[leaf.oid];
    const { name, bound } = leaf;
    const membership = memberships.get(leaf.oid) ?? null;
    // What it held when it was emptied, its twin of today may not hold.
    const isOther = known !== undefined && known.membership !== membership;
    if (isOther && (await isEmptied(source, capture, leaf.oid))) await recordReread(source, capture);
    if (known === undefined || known.isGone === true) {
      await adoptLeaf(context, source, capture, leaf, false);
      context.emit({ type: "partition-adopted", table: label, partition: tableLabel(leaf) });
    } else if (leaf.isCaptured && (known.triggers ?? leaf.triggers) === leaf.triggers) {
      partitions[leaf.oid] = { name, bound, triggers: leaf.triggers, membership };
      continue;
    } else {
      const off = uncaptured(leaf);
      problems.push(...off);
      if (off.length > 0) continue;
      await adoptLeaf(context, source, capture, leaf, true);
      if (isOther) await recordReread(source, capture);
      const reason = `the capture of its partition ${tableLabel(leaf)} was off for a while`;
      context.emit({ type: "table-reread", table: label, reason });
    }
    // Its triggers are learned with the next look.
    partitions[leaf.oid] = { name, bound, membership };
  }
  for (const [oid, leaf] of Object.entries(partitions)) {
    if (leaf.isGone === true || found.some((each) => String(each.oid) === oid)) continue;
    // As if it had been truncated: the rows went without a delta.
    await releaseLeaf(context, source, capture, { oid: Number(oid), name: leaf.name });
    partitions[oid] = { ...leaf, isGone: true };
  }
  await remember(partitions);
  if (problems.length > 0) {
    throw new ReplicateError("CAPTURE_BROKEN", `partitions of ${label} are not captured any more`, {
      problems,
      hint: "Run the statements on the source, then start again: the table will be read again as a whole.",
    });
  }
}

/** Our triggers on a partition that are there and off. */
function uncaptured(leaf: Partition): Problem[] {
  return leaf.triggers.split(", ").flatMap((each): Problem[] => {
    const [name = "", enabled] = each.split(" ");
    if (name === "" || enabled === "A") return [];
    return [
      {
        subject: tableLabel(leaf),
        message: `trigger ${name} is disabled: changes are not captured`,
        remedy: `alter table ${tableSql(leaf)} enable always trigger ${name};`,
      },
    ];
  });
}
