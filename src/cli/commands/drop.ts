import { usageInvalid } from "../arguments.ts";
import { open, printResult, type Command, type CommandContext } from "../command.ts";
import { leftInvalidLines } from "../findings.ts";
import { count } from "../format.ts";

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
  const [removes, restores] = dryRun ? ["would remove from", "would restore"] : ["removed from", "restored"];
  output.print(
    ...(report.restored > 0
      ? [
          `  ${restores} on the target: ${count(report.restored, "index, constraint or trigger", "indexes, constraints and triggers")}`,
        ]
      : []),
    ...leftInvalidLines(report.leftInvalid),
    ...report.removed.map(({ side, object }) => `  ${removes} the ${side}: ${object}`),
    dryRun ? "nothing was changed" : "the sync is gone; the rows are where they were",
  );
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
