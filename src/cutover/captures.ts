/**
 * Whether the captures of the old side can be trusted still. Rows come and go without a delta where a trigger was off for a
 * while, a table was altered, or a partition was attached. Whoever follows notices it with the next look, which may come too
 * late for a switch.
 */
import { load } from "../postgres/sql.ts";
import { tableLabel } from "../catalog/table.ts";
import { ReplicateError, type Problem } from "../errors.ts";
import type { Connection } from "../postgres/connect.ts";
import { sleep } from "../postgres/sleep.ts";
import { isSameShape } from "../follow/read/schema-change.ts";
import { loadTables, type SyncTable } from "../state/sync-table.ts";
import { tell, type SwitchRun } from "./switch-run.ts";

/** Between two looks, and how long to wait for whoever follows to have looked. */
const LOOK_MS = 250;
const PATIENCE_MS = 120_000;

interface Leaf {
  readonly root: string;
  readonly oid: string;
  readonly schema: string;
  readonly name: string;
  readonly triggers: string;
  readonly isCaptured: boolean;
}

/** What on the old side is not what whoever follows knows. */
async function findUnseen(source: Connection, target: Connection, sync: string): Promise<Problem[]> {
  const entries = await loadTables(target, sync);
  const relids = entries.map(({ sourceRelid }) => sourceRelid);
  const found = await source.rows<{ relid: string; fingerprint: string }>(load("catalog/fingerprint"), [relids]); // prettier-ignore
  const shapes = new Map(found.map(({ relid, fingerprint }) => [Number(relid), fingerprint]));
  const roots = await source.rows<{ oid: number }>(
    `select c.oid::bigint::float8 as oid from pg_catalog.pg_class c where c.oid = any ($1::oid[]) and c.relkind = 'p'`,
    [relids],
  );
  const leaves =
    roots.length === 0
      ? []
      : await source.rows<Leaf>(load("catalog/partitions"), [roots.map(({ oid }) => oid)]);
  return entries.flatMap((entry) => [
    ...unseenShape(entry, shapes.get(entry.sourceRelid)),
    ...(roots.some(({ oid }) => oid === entry.sourceRelid)
      ? unseenLeaves(entry, leaves.filter(({ root }) => Number(root) === entry.sourceRelid)) // prettier-ignore
      : []),
  ]);
}

function unseenShape(entry: SyncTable, now: string | undefined): Problem[] {
  const subject = tableLabel({ schema: entry.sourceSchema, name: entry.sourceName });
  if (now === undefined) return [{ subject, message: "was dropped" }];
  if (entry.fingerprint !== null && isSameShape(entry.fingerprint, now)) return [];
  return [
    { subject, message: "its columns, keys or capture changed since whoever follows has looked at it" },
  ];
}

function unseenLeaves(entry: SyncTable, leaves: readonly Leaf[]): Problem[] {
  const problems: Problem[] = [];
  for (const leaf of leaves) {
    const known = entry.partitions[leaf.oid];
    const subject = tableLabel(leaf);
    if (known === undefined || known.isGone === true) {
      problems.push({ subject, message: "was attached since whoever follows has looked at its table" });
    } else if (!leaf.isCaptured || known.triggers !== leaf.triggers) {
      problems.push({ subject, message: "its capture is off, or changed since whoever follows has looked at it" }); // prettier-ignore
    }
  }
  for (const [oid, { name, isGone }] of Object.entries(entry.partitions)) {
    if (isGone === true || leaves.some((leaf) => leaf.oid === oid)) continue;
    const subject = tableLabel({ schema: entry.sourceSchema, name });
    problems.push({ subject, message: "was detached since whoever follows has looked at its table" });
  }
  return problems;
}

/** Throws CAPTURE_BROKEN where changes may have been missed. */
export async function assertSeen(source: Connection, target: Connection, sync: string): Promise<void> {
  const problems = await findUnseen(source, target, sync);
  if (problems.length > 0) throw unseen(problems);
}

function unseen(problems: readonly Problem[]): ReplicateError {
  return new ReplicateError("CAPTURE_BROKEN", "tables of the old side are not what they were followed as", {
    problems,
    hint: "Have `replicate follow` run for a moment: it takes in what has changed, or says what to do. Then run the command again.",
  });
}

/** Waits until whoever follows knows the tables as they are, while nobody waits for it. Throws CAPTURE_BROKEN, ABORTED. */
export async function awaitSeen({ open, turn, source, target, follower }: SwitchRun): Promise<void> {
  const { config, signal } = open(turn.active);
  const deadline = Date.now() + PATIENCE_MS;
  for (let tries = 1; ; tries += 1) {
    const problems = await findUnseen(source, target, config.name);
    if (problems.length === 0) return;
    if (Date.now() > deadline) throw unseen(problems);
    if (tries === 2)
      tell(open(turn.active), "waiting until whoever follows has seen that tables have changed");
    await follower.ensure(target);
    await sleep(LOOK_MS, signal);
  }
}
