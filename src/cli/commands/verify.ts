import type { VerifyReport } from "../../index.ts";
import { compareSchemas } from "./schema.ts";
import { nextCommand, open, printResult, type Command } from "../command.ts";
import { count, duration, number } from "../../text/format.ts";
import { toJson } from "../output.ts";

/** Differences of one table that are shown to people; programs get all. */
const mostDifferences = 20;

export const verify: Command = async (context) => {
  const { signal, values, output } = context;
  if (values.schema === true) return await compareSchemas(context);
  await using sync = await open(context);
  const report = await sync.verify({
    signal,
    repair: values.repair === true,
    ...(values.tables === undefined ? {} : { tables: values.tables }),
    ...(values.jobs === undefined ? {} : { jobs: Number(values.jobs) }),
  });
  output.endProgress();
  printResult(context, report);
  output.print(
    ...report.tables.flatMap(tableLines),
    ...report.notReplicated.map(
      (table) =>
        `${table}: not replicated; it was created after \`replicate init\`${report.notReplicatedReasons[table] === undefined ? "" : `, and is not taken in: ${report.notReplicatedReasons[table]}`}`,
    ),
    ...report.notCompared.map((table) => `${table}: not compared, as its rows are transformed on their way`),
    summary(report),
  );
  if (!report.equal) output.print(nextStep(context, report));
  return report.equal ? 0 : 1;
};

function nextStep(context: Parameters<Command>[0], { tables, notReplicated }: VerifyReport): string {
  if (tables.every(({ equal }) => equal) && notReplicated.length > 0)
    return `next: ${nextCommand(context, "init")}, then ${nextCommand(context, "copy")}; or leave it out with --exclude-tables at init`;
  if (context.values.repair === true)
    return `the differing rows come again with the next batches: ${nextCommand(context, "follow")}`;
  // Sent again, they would be refused again.
  if (tables.every(({ differencesTotal, parked }) => differencesTotal === parked))
    return `next: ${nextCommand(context, "parked")}`;
  return `next: ${nextCommand(context, "verify --repair")}, then ${nextCommand(context, "follow")}`;
}

function tableLines(report: VerifyReport["tables"][number]): string[] {
  const { table, differences, differencesTotal, unpaired } = report;
  if (differencesTotal === 0) return [];
  if (unpaired !== undefined) {
    const { missing, extra } = unpaired;
    return [
      `${table}: ${count(missing, "row")} missing, ${count(extra, "row")} extra; it has no key to name them by`,
    ];
  }
  const shown = differences.slice(0, mostDifferences);
  const hidden = differencesTotal - shown.length;
  return [
    `${table}: ${count(differencesTotal, "difference")}`,
    ...shown.map(({ kind, key, columns, parked }) => {
      const where = columns.length === 0 ? "" : ` in ${columns.join(", ")}`;
      return `  ${kind} ${toJson(key)}${where}${parked === true ? ", parked: the target has rejected it" : ""}`;
    }),
    ...(hidden > 0
      ? [`  and ${count(hidden, "more", "more")}; --json lists up to ${number(1000)} per table`]
      : []),
  ];
}

function summary({ equal, tables, notReplicated, seconds }: VerifyReport): string {
  const sum = (of: (table: VerifyReport["tables"][number]) => number): number =>
    tables.reduce((total, table) => total + of(table), 0);
  const pending = sum((table) => table.pending);
  const parked = sum((table) => table.parked);
  const missing =
    notReplicated.length === 0 ? "" : `, ${count(notReplicated.length, "table")} not replicated`;
  const verdict = equal
    ? "equal"
    : `different: ${count(
        sum((table) => table.differencesTotal),
        "difference",
      )}${parked === 0 ? "" : `, ${number(parked)} of them rows that are parked`}${missing}`;
  const compared = `${count(tables.length, "table")}, ${count(
    sum((table) => table.rows),
    "row",
  )} compared in ${duration(seconds)}`;
  const waiting =
    pending === 0 ? "" : `; ${count(pending, "changed row")} left out that follow has not applied yet`;
  return `${verdict}; ${compared}${waiting}`;
}
