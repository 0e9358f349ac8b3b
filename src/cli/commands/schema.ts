import type { SchemaComparison, SchemaReport, Section } from "../../index.ts";
import { nextCommand, open, printResult, type Command, type CommandContext } from "../command.ts";
import { count } from "../../text/format.ts";

/** Names of one reason that are shown to people; programs get all. */
const mostNames = 10;

export const schema: Command = async (context) => {
  const { signal, values, output } = context;
  await using sync = await open(context);
  const report = await sync.schema({
    signal,
    ...(values.section === undefined ? {} : { section: values.section as Section }),
    print: values.print === true,
    dryRun: values["dry-run"] === true,
    owners: values.owners === true,
    privileges: values.privileges === true,
  });
  printResult(context, report);
  if (report.sql === null) {
    printSchema(context, report);
  } else {
    output.print(report.sql.trimEnd());
    // Not among the SQL, which may go into a file.
    for (const line of leftOutLines(report)) output.log.info({}, line.trim());
  }
  return 0;
};

/** What `verify --schema` does. */
export const compareSchemas: Command = async (context) => {
  const { signal, output } = context;
  await using sync = await open(context);
  const { equal, objects, differences, owed } = await sync.compareSchemas({ signal });
  printResult(context, { equal, objects, differences, owed } satisfies SchemaComparison);
  output.print(
    ...differences.flatMap(({ object, kind, changes }) => [
      `  ${kind} on the target: ${object}`,
      ...changes.map(
        ({ property, source, target }) => `      ${property}: ${source ?? "none"} -> ${target ?? "none"}`,
      ),
    ]),
    ...(owed.length === 0 ? [] : [`${count(owed.length, "object")} taken away by the copy until it ends`]),
    equal
      ? `equal; ${count(objects, "object")} compared`
      : `different: ${count(differences.length, "difference")} among ${count(objects, "object")}`,
  );
  return equal ? 0 : 1;
};

export function printSchema(context: CommandContext, report: SchemaReport): void {
  const { output } = context;
  const { created, existing, refreshed, dryRun } = report;
  if (dryRun) output.print(...created.map((each) => `  ${each}`));
  const there = existing.length === 0 ? "" : `; ${count(existing.length, "object")} there already`;
  const filled = refreshed.length === 0 ? "" : `; ${count(refreshed.length, "materialized view")} filled`;
  output.print(
    ...leftOutLines(report),
    dryRun
      ? `would create ${count(created.length, "object")}${there}; nothing was changed`
      : `${count(created.length, "object")} created${there}${filled}`,
  );
  const hasViews = [...created, ...existing].some((each) => each.startsWith("materialized view "));
  if (!dryRun && report.section !== "post-data" && hasViews) {
    output.print(
      `materialized views are empty until the data are there; then: ${nextCommand(context, "schema --section post-data")}`,
    );
  }
}

function leftOutLines({ leftOut }: SchemaReport): string[] {
  const byReason = new Map<string, string[]>();
  const statements = new Set<string>();
  for (const { object, reason, remedy } of leftOut) {
    byReason.set(reason, [...(byReason.get(reason) ?? []), remedy ?? object]);
    // Half of what has to be run would be of no use.
    if (remedy !== undefined) statements.add(reason);
  }
  return [...byReason].flatMap(([reason, lines]) => {
    const shown = statements.has(reason) ? lines : lines.slice(0, mostNames);
    const hidden = lines.length - shown.length;
    return [
      `left out (${reason}):`,
      ...shown.map((each) => `  ${each}`),
      ...(hidden > 0 ? [`  and ${count(hidden, "more", "more")}; --json lists all`] : []),
    ];
  });
}
