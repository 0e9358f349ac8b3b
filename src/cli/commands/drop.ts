import { usageInvalid } from "../arguments.ts";
import { open, printResult, type Command, type CommandContext } from "../command.ts";
import { leftInvalidLines } from "../findings.ts";
import { count } from "../../text/format.ts";

export const drop: Command = async (context) => {
  const { signal, values, output } = context;
  const dryRun = values["dry-run"] === true;
  if (!dryRun && values.yes !== true && !(await isConfirmed(context))) {
    output.print("nothing was changed");
    printResult(context, { removed: [], restored: 0, leftInvalid: [], dryRun });
    return 1;
  }
  await using sync = await open(context);
  const report = await sync.drop({
    signal,
    dryRun,
    sourceOnly: values["source-only"] === true,
    targetOnly: values["target-only"] === true,
  });
  printResult(context, report);
  const restored = `${count(report.restored, "index, constraint or trigger", "indexes, constraints and triggers")} of the target`;
  if (dryRun) {
    output.print(
      ...(report.restored > 0 ? [`  would restore ${restored}`] : []),
      ...report.removed.map(({ side, object }) => `  would remove from the ${side}: ${object}`),
      "nothing was changed",
    );
  } else {
    // What was removed is told by events.
    output.print(
      ...leftInvalidLines(report.leftInvalid),
      `the sync is gone${report.restored > 0 ? `, ${restored} restored` : ""}; the rows are where they were`,
    );
  }
  return 0;
};

async function isConfirmed({ terminal, options, values, signal }: CommandContext): Promise<boolean> {
  if (terminal.ask === undefined) {
    const message = "is needed where nobody can be asked (or --dry-run, to see what would be removed)";
    throw usageInvalid([{ subject: "--yes", message }], "drop");
  }
  const where =
    values["source-only"] === true
      ? "the source"
      : values["target-only"] === true
        ? "the target"
        : "both servers";
  const question = `Remove the sync ${options.name ?? "default"} from ${where}? The rows stay. [y/N] `;
  return /^y(es)?$/i.test((await terminal.ask(question, signal)).trim());
}
