/** Help texts and the reference, made from the tables in options.ts and verbs.ts. */
import { columns, wrap } from "../text/format.ts";
import { options, optionSpec, variables, type OptionName } from "./options.ts";
import {
  commonOptions,
  exitCodes,
  operandsOf,
  partsTitle,
  verbNames,
  verbs,
  type VerbName,
} from "./verbs.ts";

const width = 100;

/** What `replicate --help` prints. */
export function programHelp(): string {
  const verbRows = verbNames.map((name) => [`  ${name}`, verbs[name].summary]);
  return [
    "replicate moves a live PostgreSQL database to another server and keeps both in step.",
    "",
    "Usage: replicate <command> [options]",
    "",
    "Commands",
    ...columns(verbRows),
    "",
    ...commonHelp(),
    "",
    "Connections",
    ...wrap(
      "A CONN is a URL (postgresql://user:password@host:5432/dbname?sslmode=require) or a libpq keyword string (host=… dbname=… sslmode=require). What it leaves out comes from libpq's variables, ~/.pgpass and service files.",
      width - 2,
    ).map((line) => `  ${line}`),
    "",
    "Variables",
    ...variables.flatMap(([names, says]) => [`  ${names}`, `      ${says}`]),
    "",
    "Exit codes",
    ...exitCodes.map(([code, says]) => `  ${code}  ${says}`),
    "",
    "Example",
    "  replicate run --source postgresql://app@old.example.org/shop --target postgresql://app@new.example.org/shop",
    "",
    "replicate <command> --help explains a command.",
  ].join("\n");
}

/** What `replicate <verb> --help` prints. */
export function verbHelp(name: VerbName): string {
  const verb = verbs[name];
  return [
    `replicate ${name}: ${verb.summary}`,
    "",
    ...verb.details.flatMap((each) => [...wrap(each, width), ""]),
    `Usage: replicate ${usage(name)} [options]`,
    "",
    ...section("Options", verb.options),
    "",
    ...commonHelp((title) => title !== partsTitle),
    "",
    "replicate --help has more about connections, variables and exit codes.",
    "",
    "Example",
    ...verb.examples.flatMap(({ command, says }) => [`  replicate ${command}`, `      ${says}`]),
  ].join("\n");
}

/** The reference as Markdown, for the README. */
export function reference(): string {
  const cell = (text: string): string => text.replaceAll("|", String.raw`\|`);
  const table = (names: readonly OptionName[]): string[] => [
    "| option | |",
    "|---|---|",
    ...names.map((name) => `| \`${cell(flag(name))}\` | ${cell(optionHelp(name))} |`),
  ];
  return [
    ...verbNames.flatMap((name) => [
      `### \`replicate ${usage(name)}\``,
      "",
      `${capital(verbs[name].summary)}. ${verbs[name].details.join(" ")}`,
      "",
      ...table(verbs[name].options),
      "",
      ...verbs[name].examples.flatMap(({ command, says }) => [
        "```sh",
        `replicate ${command}   # ${says}`,
        "```",
        "",
      ]),
    ]),
    "### Options of every command",
    "",
    ...table(Object.values(commonOptions).flat()),
    "",
    `With \`--log-level trace\` each statement of each session is said when it has ended: side, purpose of the session, milliseconds, rows, the SQLSTATE as \`error\` where it failed, and the statement itself with those of its script, cut where it is long. No value is shown: parameters are not, every literal is \`'…'\`, \`$…$\` or \`?\`, and of a server's error only its code is. Names of tables and columns are shown. In the library, a \`logger\` that has a method \`trace\` gets the same; where it also has \`isLevelEnabled\`, only while that says so.`,
    "",
    "### Variables",
    "",
    ...variables.map(([names, says]) => `- \`${names}\`: ${says}`),
    "",
    "### Exit codes",
    "",
    "| code | meaning |",
    "|---|---|",
    ...exitCodes.map(([code, says]) => `| ${code} | ${says} |`),
  ].join("\n");
}

/** `conflicts [resolve ID…]` */
function usage(name: VerbName): string {
  const operands = operandsOf(name);
  return operands === undefined ? name : `${name} ${operands}`;
}

function commonHelp(isShown: (title: string) => boolean = () => true): string[] {
  return Object.entries(commonOptions)
    .filter(([title]) => isShown(title))
    .flatMap(([title, names], index) => [...(index === 0 ? [] : [""]), ...section(title, names)]);
}

function section(title: string, names: readonly OptionName[]): string[] {
  const shown = names.map((name) => [flag(name), optionHelp(name)] as const);
  const widest = Math.max(...Object.keys(options).map((name) => flag(name as OptionName).length));
  const rows = shown.flatMap(([left, right]) =>
    wrap(right, width - widest - 4).map((line, index) =>
      `  ${(index === 0 ? left : "").padEnd(widest)}  ${line}`.trimEnd(),
    ),
  );
  return [title, ...rows];
}

function flag(name: OptionName): string {
  const { value } = optionSpec(name);
  return `--${name}${value === undefined ? "" : ` ${value}`}`;
}

function optionHelp(name: OptionName): string {
  const { help, choices } = optionSpec(name);
  return choices === undefined ? help : `${help} (${choices.join(", ")})`;
}

function capital(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}
