import type { Command } from "../command.ts";
import { nextCommand, open, printResult } from "../command.ts";
import { findingLines, settingLines } from "../findings.ts";

export const preflight: Command = async (context) => {
  const { output, signal, values } = context;
  await using sync = await open(context);
  const report = await sync.preflight({
    signal,
    checkForeignKeys: values["check-foreign-keys"] === true,
    showSettings: values["show-settings"] === true,
  });
  printResult(context, report);
  if (report.settings !== undefined) output.print(...settingLines(report.settings));
  output.print(...findingLines(report.findings));
  output.print(
    report.ok ? `ready; next: ${nextCommand(context, "init")}` : "blocked: repair the findings above first",
  );
  return report.ok ? 0 : 1;
};
