import { usageInvalid } from "../arguments.ts";
import { open, printResult, type Command } from "../command.ts";
import { columns, count } from "../../text/format.ts";
import { interleave } from "./interleave.ts";

export const sequences: Command = async (context) => {
  const { signal, values, output } = context;
  if (values.interleave === true) return await interleave(context);
  if (values.print === true)
    throw usageInvalid([{ subject: "--print", message: "needs --interleave" }], "sequences");
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
    ...(report.interleaved.length > 0
      ? [`  ${count(report.interleaved.length, "sequence")} shared out between both sides: not carried`]
      : []),
    `${count(report.sequences.length, "sequence")}, ${changed.length} set`,
  );
  return 0;
};
