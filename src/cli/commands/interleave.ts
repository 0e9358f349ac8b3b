/** The part of `sequences` that shares numbers out. */
import type { InterleavedSequence, Side } from "../../index.ts";
import { open, printResult, type CommandContext } from "../command.ts";
import { columns, count } from "../../text/format.ts";

export async function interleave(context: CommandContext): Promise<number> {
  const { signal, values, output } = context;
  await using sync = await open(context);
  const dryRun = values.print === true;
  const report = await sync.interleave({
    signal,
    dryRun,
    ...(values.shares === undefined ? {} : { shares: values.shares }),
    ...(values["source-share"] === undefined ? {} : { sourceShare: values["source-share"] }),
    ...(values["target-share"] === undefined ? {} : { targetShare: values["target-share"] }),
  });
  printResult(context, report);
  const changed = report.sequences.filter((each) => each.changed);
  if (dryRun) {
    output.print(...statements(changed, "source"), ...statements(changed, "target"));
    return 0;
  }
  output.print(
    ...columns(
      changed.flatMap(({ source, target }) => [
        [`  ${source.name}`, "source", source.next ?? "", `by ${source.increment}`],
        [`  ${target.name}`, "target", target.next ?? "", `by ${target.increment}`],
      ]),
      [2],
    ),
    ...report.missing.map((name) => `  ${name} is missing on the target`),
    `${count(report.sequences.length, "sequence")} shared out, ${changed.length} of them now`,
  );
  return 0;
}

function statements(sequences: readonly InterleavedSequence[], side: Side): string[] {
  if (sequences.length === 0) return [];
  return [`-- on the ${side}`, ...sequences.map((each) => `${each[side].statement};`)];
}
