import { open, printResult, type Command } from "../command.ts";
import { columns, count } from "../format.ts";

export const sequences: Command = async (context) => {
  const { signal, values, output } = context;
  await using sync = await open(context);
  const report = await sync.sequences({
    signal,
    ...(values.margin === undefined ? {} : { margin: values.margin }),
  });
  printResult(context, report);
  const changed = report.sequences.filter((each) => each.changed);
  const show = (value: string | null): string => value ?? "unused";
  output.print(
    ...columns(
      changed.map(({ name, from, to }) => [`  ${name}`, show(from), "->", show(to)]),
      [1, 3],
    ),
    ...report.missing.map((name) => `  ${name} is missing on the target`),
    `${count(report.sequences.length, "sequence")}, ${changed.length} set`,
  );
  return 0;
};
