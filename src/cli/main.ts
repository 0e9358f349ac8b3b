/** The command line: parses, makes one call to the library, prints. Importing this file does nothing. */
import {
  loadOptions,
  placeOf,
  placeText,
  ReplicateError,
  resolveConfig,
  type SyncOptions,
} from "../index.ts";
import { parseArguments, settingsOf, type Arguments } from "./arguments.ts";
import { printsLines, type Command } from "./command.ts";
import { conflicts } from "./commands/conflicts.ts";
import { copy } from "./commands/copy.ts";
import { cutover } from "./commands/cutover.ts";
import { drop } from "./commands/drop.ts";
import { follow } from "./commands/follow.ts";
import { init } from "./commands/init.ts";
import { parked } from "./commands/parked.ts";
import { preflight } from "./commands/preflight.ts";
import { rollback } from "./commands/rollback.ts";
import { run } from "./commands/run.ts";
import { runbook } from "./commands/runbook.ts";
import { schema } from "./commands/schema.ts";
import { serve } from "./commands/serve.ts";
import { sequences } from "./commands/sequences.ts";
import { status } from "./commands/status.ts";
import { verify } from "./commands/verify.ts";
import { programHelp, verbHelp } from "./help.ts";
import type { Values } from "./options.ts";
import type { VerbName } from "./verbs.ts";
import { Output } from "./output.ts";
import { Progress } from "./progress.ts";
import { processTerminal, type Terminal } from "./terminal.ts";
import { version } from "./version.ts";

const commands: Readonly<Record<VerbName, Command>> = {
  preflight,
  schema,
  init,
  copy,
  follow,
  run,
  verify,
  status,
  parked,
  sequences,
  cutover,
  rollback,
  conflicts,
  drop,
  serve,
  runbook,
};

/** Runs one command. Never throws; returns the exit code. `argv` begins after the program's name. */
export async function main(argv: readonly string[], terminal: Terminal = processTerminal()): Promise<number> {
  let parsed: Arguments;
  try {
    if (argv.length === 0) {
      terminal.stderr.write(`${programHelp()}\n`);
      return 2;
    }
    parsed = parseArguments(argv);
  } catch (error) {
    // Whether JSON is wanted has to be guessed from a line that could not be read.
    const output = new Output(terminal, {
      json: argv.includes("--json"),
      logLevel: "info",
      logFormat: "text",
    });
    return fail(error, output, { isLine: false, logLevel: "info" });
  }
  const { verb, operands, values } = parsed;
  if (values.version === true) {
    terminal.stdout.write(`${version()}\n`);
    return 0;
  }
  if (verb === undefined || values.help === true) {
    terminal.stdout.write(`${verb === undefined ? programHelp() : verbHelp(verb)}\n`);
    return 0;
  }
  return await execute(verb, operands, values, terminal);
}

async function execute(
  verb: VerbName,
  operands: readonly string[],
  values: Values,
  terminal: Terminal,
): Promise<number> {
  const { env } = terminal;
  // The arguments may hold a password, and everybody may see them.
  terminal.setTitle?.(`replicate ${verb} ${values.name ?? env["REPLICATE_NAME"] ?? ""}`.trimEnd());
  const logLevel = values["log-level"] ?? "info";
  const logFormat = values["log-format"] === "json" ? "json" : "text";
  const output = new Output(terminal, { json: values.json === true, logLevel, logFormat });
  const controller = new AbortController();
  const progress = new Progress(output, values.json === true && printsLines(verb));
  const forget = terminal.onStop?.((cause) => {
    const isSecond = controller.signal.aborted;
    if (cause !== "EPIPE") {
      // Ended now, applications could write to neither side.
      if (progress.mayBeFenced)
        output.log.warn(
          {},
          `${cause}: opening the old side again; until that is done no signal ends this process`,
        );
      else if (isSecond) terminal.exit?.(130);
      else output.log.info({}, `${cause}: ending cleanly; a second one ends at once`);
    }
    controller.abort();
  });
  try {
    const options = loadOptions({ file: values.config, flags: settingsOf(values, verb) }, env);
    terminal.setTitle?.(`replicate ${verb} ${options.name ?? "default"}`);
    output.log.info(...whichPair(verb, options, logFormat === "json", env));
    return await commands[verb]({
      verb,
      operands,
      values,
      options,
      terminal,
      output,
      progress,
      listeners: new Set([progress.onEvent]),
      signal: controller.signal,
    });
  } catch (error) {
    output.endProgress();
    return fail(error, output, { isLine: printsLines(verb), logLevel });
  } finally {
    forget?.();
  }
}

/** Said before anything is done: variables and files that are left over lead to databases that nobody meant. */
function whichPair(
  verb: VerbName,
  options: SyncOptions,
  isJson: boolean,
  env: NodeJS.ProcessEnv,
): readonly [fields: object, message: string] {
  const { name, ...sides } = resolveConfig(options, env);
  const [source, target] = [placeOf(sides.source), placeOf(sides.target)];
  return [
    isJson ? { verb, sync: name, source, target } : {},
    `${verb} ${name}: source ${placeText(source)}, target ${placeText(target)}`,
  ];
}

/** For what nobody caught, which is a defect: says so like every other error, and returns the exit code. */
export function reportCrash(error: unknown, terminal: Terminal = processTerminal()): number {
  const output = new Output(terminal, { json: false, logLevel: "error", logFormat: "text" });
  return fail(error, output, { isLine: false, logLevel: "debug" });
}

function fail(
  error: unknown,
  output: Output,
  options: { readonly isLine: boolean; readonly logLevel: string },
): number {
  const known =
    error instanceof ReplicateError
      ? error
      : new ReplicateError("INTERNAL", error instanceof Error ? error.message : String(error), {
          cause: error,
        });
  output.error(known, {
    isLine: options.isLine,
    withStack: known.code === "INTERNAL" && ["trace", "debug"].includes(options.logLevel),
  });
  return known.exitCode;
}
