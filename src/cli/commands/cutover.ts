import { ReplicateError, type CutoverOptions, type Rehearsal, type SwitchReport } from "../../index.ts";
import { usageInvalid } from "../arguments.ts";
import { nextCommand, open, printResult, type Command, type CommandContext } from "../command.ts";
import { leftInvalidLines } from "../findings.ts";
import { columns, count, duration } from "../../text/format.ts";

export const cutover: Command = async (context) => await switchSides(context, "cutover");

/** Cutover and rollback, which differ in nothing but the way. */
export async function switchSides(context: CommandContext, verb: "cutover" | "rollback"): Promise<number> {
  const { values, output, signal } = context;
  const given = switchOptions(context, verb);
  await using sync = await open(context);
  const rehearse = async (): Promise<Rehearsal | null> =>
    (await sync[verb]({ ...given, signal, rehearse: true, undo: false, finish: false })).rehearsal;
  if (values.rehearse === true || values["dry-run"] === true) {
    const rehearsal = await rehearse();
    output.document({ rehearsal });
    output.print(...rehearsalLines(rehearsal), "nothing was changed");
    return (rehearsal?.blockers.length ?? 0) > 0 ? 1 : 0;
  }
  if (values.yes !== true && values.undo !== true && !(await isConfirmed(context, verb, rehearse))) {
    output.print("nothing was changed");
    return 1;
  }
  const report = await sync[verb]({ ...given, signal });
  output.endProgress();
  printResult(context, report);
  output.print(...leftInvalidLines(report.leftInvalid), ...reportLines(context, verb, report));
  return 0;
}

function switchOptions({ values }: CommandContext, verb: "cutover" | "rollback"): CutoverOptions {
  const timeoutMs = values.timeout === undefined ? undefined : parseDuration(values.timeout);
  if (timeoutMs === null) {
    throw usageInvalid(
      [{ subject: "--timeout", message: "has to be a time such as 30s, 2m or 500ms" }],
      verb,
    );
  }
  return {
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(values.margin === undefined ? {} : { margin: values.margin }),
    ...(values["on-open"] === undefined ? {} : { onOpen: values["on-open"] }),
    ...(values.undo === true ? { undo: true } : {}),
    ...(values.finish === true ? { finish: true } : {}),
    ...(values["keep-closed"] === true ? { keepClosed: true } : {}),
    ...(values["accept-parked"] === true ? { acceptParked: true } : {}),
    ...(values["accept-unreplicated"] === true ? { acceptUnreplicated: true } : {}),
    ...(values["no-verify"] === true ? { verify: false } : {}),
    ...reverseOf({ reverse: values["no-reverse"] !== true }),
  };
}

function reverseOf({ reverse }: CutoverOptions): CutoverOptions {
  return reverse === false ? { reverse } : {};
}

/** Milliseconds of "30s", "2m", "500ms" or a number of seconds; null if it is none, or nothing. */
function parseDuration(text: string): number | null {
  const match = /^(\d+(?:\.\d+)?)\s*(ms|s|m|min)?$/.exec(text.trim());
  const unit = { ms: 1, s: 1000, m: 60_000, min: 60_000 }[match?.[2] ?? "s"] ?? 1000;
  const ms = Math.round(Number(match?.[1] ?? 0) * unit);
  return ms > 0 ? ms : null;
}

async function isConfirmed(
  { terminal, options, values, signal, output }: CommandContext,
  verb: "cutover" | "rollback",
  rehearse: () => Promise<Rehearsal | null>,
): Promise<boolean> {
  if (terminal.ask === undefined) {
    const message = "is needed where nobody can be asked (or --rehearse, to see what it would take)";
    throw usageInvalid([{ subject: "--yes", message }], verb);
  }
  const name = options.name ?? "default";
  let question = `End the time in which sync ${name} can be switched back? After a cutover the source ${
    values["keep-closed"] === true ? "stays closed" : "takes writes again then (unless --keep-closed)"
  }. [y/N] `;
  if (values.finish !== true) {
    const rehearsal = await rehearse();
    output.print(...rehearsalLines(rehearsal));
    if ((rehearsal?.blockers.length ?? 0) > 0) {
      throw new ReplicateError("PREFLIGHT_BLOCKED", "the findings above must be settled first");
    }
    const to = verb === "cutover" ? "target" : "source";
    question = `Switch the applications of sync ${name} to the ${to} now? [y/N] `;
  }
  return /^y(es)?$/i.test((await terminal.ask(question, signal)).trim());
}

function rehearsalLines(rehearsal: Rehearsal | null): string[] {
  if (rehearsal === null) return [];
  const { blockers, warnings, parts, fenceSeconds } = rehearsal;
  const finding =
    (severity: string) =>
    ({ subject, message, remedy }: Rehearsal["blockers"][number]): string[] => [
      `  ${severity}: ${subject}: ${message}`,
      ...(remedy === undefined ? [] : [`      ${remedy}`]),
    ];
  return [
    `the switch would keep applications from writing for about ${duration(fenceSeconds)}:`,
    ...columns(
      parts.map(({ step, seconds, basis }) => [`  ${step}`, duration(seconds), basis]),
      [1],
    ),
    ...blockers.flatMap(finding("blocking")),
    ...warnings.flatMap(finding("warning")),
  ];
}

function reportLines(
  context: CommandContext,
  verb: "cutover" | "rollback",
  { result, primary, fenceSeconds, rowsCompared, sequences, leftInvalid }: SwitchReport,
): string[] {
  const side = `applications write to the ${primary}`;
  if (result === "undone") return [`undone; ${side}`];
  if (result === "nothing-to-do") return [`the ${verb} is done already; ${side}`];
  if (result === "finished") {
    return [
      primary === "target"
        ? `finished: the sync is gone, the target stands alone; the source ${
            context.values["keep-closed"] === true
              ? `refuses writes until \`${nextCommand(context, "drop --source-only")}\``
              : "takes writes again"
          }`
        : `finished; ${side}`,
    ];
  }
  const missing = (sequences?.missing ?? []).map((name) => `  sequence ${name} is missing on the new side`);
  const fence =
    fenceSeconds === null
      ? ""
      : `; nobody could write for ${duration(fenceSeconds)}, ${count(rowsCompared ?? 0, "changed row")} compared`;
  const back =
    context.values["no-reverse"] === true
      ? []
      : [`next: ${nextCommand(context, "follow")}, which keeps the other side current`];
  return [...missing, `switched: ${side}${fence}`, ...leftInvalidLines(leftInvalid), ...back];
}
