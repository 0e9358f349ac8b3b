import type { CopyReport } from "../../index.ts";
import { nextCommand, open, printResult, type Command, type CommandContext } from "../command.ts";

export const copy: Command = async (context) => {
  const { signal, values } = context;
  await using sync = await open(context);
  const report = await sync.copy({
    signal,
    overwrite: values.overwrite === true,
    adopt: values.adopt === true,
    restart: values.restart === true,
    dryRun: values["dry-run"] === true,
  });
  context.output.endProgress();
  printResult(context, report);
  printCopy(context, report);
  if (!report.dryRun) context.output.print(`next: ${nextCommand(context, "follow")}`);
  return 0;
};

export function printCopy({ output }: CommandContext, report: CopyReport): void {
  output.print(report.dryRun ? "nothing was changed" : "the copy is done");
}
