import type { CopyReport } from "../../index.ts";
import { nextCommand, open, printResult, type Command, type CommandContext } from "../command.ts";
import { leftInvalidLines } from "../findings.ts";
import { bytes, count, duration } from "../../text/format.ts";

export const copy: Command = async (context) => {
  const { signal, values } = context;
  await using sync = await open(context);
  const report = await sync.copy({
    signal,
    overwrite: values.overwrite === true,
    overwriteSource: values["overwrite-source"] === true,
    adopt: values.adopt === true,
    restart: values.restart === true,
    remap: values.remap === true,
    dryRun: values["dry-run"] === true,
  });
  context.output.endProgress();
  printResult(context, report);
  if (values["dry-run"] === true) {
    printPlan(context, report);
  } else {
    printCopy(context, report);
    context.output.print(`next: ${nextCommand(context, "follow")}`);
  }
  return 0;
};

export function printCopy(
  context: CommandContext,
  { tables, rows, bytes: size, seconds, leftInvalid }: CopyReport,
): void {
  const { output } = context;
  const parked = tables.reduce((sum, table) => sum + table.parked, 0);
  output.print(
    ...leftInvalidLines(leftInvalid),
    ...(parked === 0
      ? []
      : [`${count(parked, "row")} that the target rejects: ${nextCommand(context, "parked")}`]),
    `the copy is done: ${count(tables.length, "table")}, ${count(rows, "row")}, ${bytes(size)} (this run: ${duration(seconds)})`,
  );
}

function printPlan({ output }: CommandContext, { plan }: CopyReport): void {
  const lines = plan.flatMap(({ table, target, bytes: size, parts, format, emptiesTarget, removes }) => [
    `  ${table}${table === target ? "" : ` -> ${target}`}: ${bytes(size)} in ${count(parts, "part")}, as ${format}` +
      (emptiesTarget ? "; the rows of the target's table would go" : ""),
    ...removes.map((statement) => `      ${statement}`),
  ]);
  const total = (of: (table: CopyReport["plan"][number]) => number): number =>
    plan.reduce((sum, table) => sum + of(table), 0);
  const parts = count(
    total((table) => table.parts),
    "part",
  );
  output.print(
    ...lines,
    `would copy ${count(plan.length, "table")}, ${bytes(total((table) => table.bytes))} in ${parts}; nothing was changed`,
  );
}
