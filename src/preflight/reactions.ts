/** What else acts when we do something: event triggers, triggers and rules of the target, subscriptions. */
import { tableLabel } from "../catalog/table.ts";
import type { Reaction } from "../catalog/definitions.ts";
import type { Connection } from "../postgres/connect.ts";
import { ident, load } from "../postgres/sql.ts";
import { withLeaves, type Examination } from "./examination.ts";
import { administrator, run, some, type Finding } from "./finding.ts";

interface EventTrigger {
  readonly name: string;
  readonly event: string;
  readonly enabled: "O" | "A" | "R";
  readonly tags: readonly string[] | null;
  readonly owner: string;
  readonly function: string;
  readonly isExtensionMember: boolean;
}

interface Subscription {
  readonly name: string;
  readonly owner: string;
  readonly tables: readonly string[];
}

/** What `init`, `copy` and `drop` do on each side. */
const ourTags: Readonly<Record<Connection["side"], readonly string[]>> = {
  source: [
    "CREATE SCHEMA", "CREATE TABLE", "CREATE FUNCTION", "CREATE TRIGGER", "ALTER TABLE", "CREATE INDEX",
    "DROP SCHEMA", "DROP TABLE", "DROP FUNCTION", "DROP TRIGGER", "REVOKE", "GRANT",
  ],
  target: [
    "CREATE SCHEMA", "CREATE TABLE", "CREATE FUNCTION", "ALTER TABLE", "CREATE INDEX", "ALTER INDEX", "COMMENT",
    "DROP SCHEMA", "DROP TABLE", "DROP FUNCTION", "DROP INDEX",
  ],
}; // prettier-ignore

export async function checkReactions({
  context,
  source,
  target,
  servers,
  pairs,
}: Examination): Promise<Finding[]> {
  const sides = [source, target];
  const events = await Promise.all(
    sides.map((each) => each.rows<EventTrigger>(load("preflight/event-triggers"))),
  );
  const oids = withLeaves(pairs.map((pair) => pair.target));
  const reactions = await target.rows<Reaction>(load("catalog/reactions"), [oids]);
  const foreignKeys = await target.rows(load("catalog/foreign-keys"), [oids]);
  const subscriptions = await target.rows<Subscription>(load("preflight/subscriptions"), [oids]);
  return [
    ...sides.flatMap((each, n) => (events[n] ?? []).flatMap((found) => eventFindings(each, found))),
    ...reactionFindings(reactions, foreignKeys.length, {
      isReplicaRole: context.isReplicaRole,
      role: servers.target.role,
      version: target.version,
    }),
    ...subscriptions.map(subscriptionFinding),
  ];
}

function eventFindings({ side, isReplicaRole }: Connection, trigger: EventTrigger): Finding[] {
  const { name, event, enabled, tags, owner, isExtensionMember } = trigger;
  if (enabled === (isReplicaRole ? "O" : "R")) return [];
  const hit = tags === null ? ["any"] : tags.filter((tag) => ourTags[side].includes(tag));
  if (hit.length === 0) return [];
  return [
    {
      severity: isExtensionMember ? "note" : "warning",
      subject: `event trigger ${name}`,
      message: `fires on the ${side} at ${event} of ${tags === null ? "every command" : some(hit)}, so on ours too: function ${trigger.function} may refuse or change what is installed`,
      ...run(side, owner, `alter event trigger ${ident(name)} disable;  -- enable it again after the switch`),
    },
  ];
}

/** What the copy takes away or disables, and when it comes back. */
function reactionFindings(
  reactions: readonly Reaction[],
  foreignKeys: number,
  {
    isReplicaRole,
    role,
    version,
  }: { readonly isReplicaRole: boolean; readonly role: string; readonly version: number },
): Finding[] {
  const firing = isReplicaRole ? ["A", "R"] : ["O", "A"];
  const disabled = reactions.filter(({ kind, enabled }) => kind === "rule" || firing.includes(enabled));
  const names = disabled.map(
    (each) => `${each.name} on ${tableLabel({ schema: each.schema, name: each.table })}`,
  );
  if (isReplicaRole) {
    if (names.length === 0) return [];
    const message = `${some(names)} would act on replicated rows: disabled from copy until cutover or drop`;
    return [{ severity: "note", subject: "triggers and rules of the target", message }];
  }
  if (names.length + foreignKeys === 0) return [];
  const what = [
    ...(names.length === 0 ? [] : [`${some(names)} ${names.length > 1 ? "are" : "is"} disabled`]),
    ...(foreignKeys === 0 ? [] : [`${foreignKeys} foreign key${foreignKeys > 1 ? "s are" : " is"} away`]),
  ];
  const grantable = version >= 150_000;
  return [
    {
      severity: "note",
      subject: "session_replication_role",
      message: `role ${role} may not set it on the target: from copy until cutover or drop ${what.join(", and ")}`,
      ...run(
        "target",
        administrator,
        grantable
          ? `grant set on parameter session_replication_role to ${ident(role)};`
          : `alter role ${ident(role)} superuser;  -- or the provider's role for it, such as: grant rds_superuser to ${ident(role)}`,
      ),
    },
  ];
}

function subscriptionFinding({ name, owner, tables }: Subscription): Finding {
  return {
    severity: "warning",
    subject: `subscription ${name}`,
    message: `writes to ${some(tables)} on the target too: both would take each other's rows for differences`,
    ...run("target", owner, `alter subscription ${ident(name)} disable;`),
  };
}
