/** A sync that goes the other way between the same databases: most often source and target were exchanged. */
import { tableLabel } from "../catalog/table.ts";
import type { ResolvedConfig } from "../config/options.ts";
import type { Connection } from "../postgres/connect.ts";
import { stateVersion } from "../state/migrate.ts";
import { reverseName } from "../state/switch.ts";
import { some, type Finding } from "./finding.ts";
import type { TablePair } from "./pairs.ts";

/**
 * Of two syncs that take the same tables there and back each would send back what the other has brought, and an older row
 * would undo a newer one. A way back that sleeps or serves another sync's cutover counts. Syncs of other tables, chains and
 * stars are none of this.
 */
export async function checkReverseSync(
  config: Pick<ResolvedConfig, "name">,
  source: Connection,
  target: Connection,
  pairs: readonly TablePair[],
): Promise<Finding[]> {
  if ((await stateVersion(source)) === 0 || (await stateVersion(target)) === 0) return [];
  // The way back of this sync itself belongs to it.
  const isOther = (name: string): boolean => name !== reverseName(config.name);
  const reverse = (await syncsBetween(target, source)).filter(isOther);
  const alike = (await syncsBetween(source, target)).filter((name) => isOther(name) && isBack(name));
  const labelsOf = async (side: Connection, name: string): Promise<string[]> => {
    const entries = await side.rows<{ from: number; to: number }>(
      `select source_relid::bigint::float8 as "from", target_relid::bigint::float8 as "to"
       from replicate.sync_table where sync = $1`,
      [name],
    );
    return pairs
      .filter((pair) => {
        const [from, to] =
          side === source ? [pair.target.oid, pair.source.oid] : [pair.source.oid, pair.target.oid];
        return entries.some((entry) => entry.from === from && entry.to === to);
      })
      .map((pair) => tableLabel(pair.source));
  };
  const findings = new Map<string, Finding>();
  for (const [side, name] of [
    ...reverse.map((each) => [source, each] as const),
    ...alike.map((each) => [target, each] as const),
  ]) {
    const labels = await labelsOf(side, name);
    const sync = isBack(name) ? name.slice(0, -reverseName("").length) : name;
    if (labels.length === 0 || findings.has(sync)) continue;
    findings.set(sync, finding(sync, some(labels), isBack(name)));
  }
  return [...findings.values()];
}

function isBack(name: string): boolean {
  return name.endsWith(reverseName(""));
}

function finding(sync: string, labels: string, isTurned: boolean): Finding {
  return {
    severity: "blocking",
    subject: `sync ${sync}`,
    message: isTurned
      ? `has ${labels} between these databases, and is cut over or goes both ways: each would send back what the other brings`
      : `goes from this target to this source already, with ${labels}: each would send back what the other brings`,
    remedy: [
      "if source and target were exchanged by mistake, exchange them again",
      `if applications write to both sides: direction: both for sync ${sync}, with its own source and target`,
      `if applications are to be switched: replicate ${isTurned ? "rollback" : "cutover"} --name ${sync}`,
    ].join("\n"),
  };
}

const LOOKS = 5;

/** Names of the syncs that read from `from` and write to `to`. Both sides hold the same token then. */
async function syncsBetween(from: Connection, to: Connection): Promise<string[]> {
  interface Known {
    readonly name: string;
    readonly tokens: readonly string[];
  }
  const givers = async (): Promise<Known[]> =>
    await from.rows<Known>(
      `select name, array[token, previous_token] as tokens from replicate.source_sync order by name`,
    );
  let before = await givers();
  if (before.length === 0) return [];
  // A batch changes the token on both sides, one after the other: look again where one was committed meanwhile.
  for (let look = 1; ; look += 1) {
    const takers = await to.rows<{ name: string; token: string }>(
      `select name, token from replicate.sync where not is_closed`,
    );
    const after = await givers();
    const seen = [...before, ...after];
    const found = takers.filter(({ name, token }) =>
      seen.some((each) => each.name === name && each.tokens.includes(token)),
    );
    if (look === LOOKS || JSON.stringify(before) === JSON.stringify(after))
      return found.map(({ name }) => name);
    before = after;
  }
}
