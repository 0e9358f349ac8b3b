import type { InitReport } from "../../index.ts";
import { nextCommand, open, printResult, type Command, type CommandContext } from "../command.ts";
import { findingLines } from "../findings.ts";
import { count } from "../../text/format.ts";

export const init: Command = async (context) => {
  const { signal, values } = context;
  await using sync = await open(context);
  const report = await sync.init({ signal, dryRun: values["dry-run"] === true });
  printResult(context, report);
  printInit(context, report);
  if (!report.dryRun) context.output.print(`next: ${nextCommand(context, "copy")}`);
  return 0;
};

export function printInit({ output }: CommandContext, report: InitReport): void {
  if (report.findings.length > 0) output.print(...findingLines(report.findings));
  const fresh = report.tables.filter(({ isNew }) => isNew);
  // What is really done is told by events.
  for (const { source, target } of report.dryRun ? fresh : []) {
    output.print(`  ${source}${source === target ? "" : ` -> ${target}`}`);
  }
  const known = report.tables.length - fresh.length;
  const rest = known === 0 ? "" : `; ${count(known, "table")} known already`;
  output.print(
    report.dryRun
      ? `would record the changes of ${count(fresh.length, "table")}${rest}; nothing was changed`
      : `the changes of ${count(fresh.length, "table")} are recorded from now on${rest}`,
  );
}
