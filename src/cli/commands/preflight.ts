import type { Command } from "../command.ts";
import { nextCommand, open, printResult } from "../command.ts";
import { findingLines } from "../findings.ts";

export const preflight: Command = async (context) => {
  const { output, signal, values } = context;
  await using sync = await open(context);
  const report = await sync.preflight({
    signal,
    checkForeignKeys: values["check-foreign-keys"] === true,
  });
  printResult(context, report);
  output.print(...findingLines(report.findings));
  output.print(
    report.ok ? `ready; next: ${nextCommand(context, "init")}` : "blocked: repair the findings above first",
  );
  return report.ok ? 0 : 1;
};
