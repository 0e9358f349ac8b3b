/** Takes the command line apart. What is wrong with it is reported all at once. */
import yargs, { type Options } from "yargs";
import { ReplicateError, type GivenSetting, type Problem, type Side } from "../index.ts";
import { didYouMean } from "../config/spelling.ts";
import { optionSpec, options, type OptionName, type Values } from "./options.ts";
import { operandsOf, optionsOf, verbNames, type VerbName } from "./verbs.ts";

export interface Arguments {
  /** Undefined where only help or the version is wanted, or nothing was given. */
  readonly verb: VerbName | undefined;
  /** Words after the verb, of verbs that take some. */
  readonly operands: readonly string[];
  readonly values: Values;
}

const optionNames = Object.keys(options) as readonly OptionName[];

/** Parses the arguments after the program's name. Throws USAGE_INVALID. */
export function parseArguments(argv: readonly string[]): Arguments {
  const parsed = parser()(argv);
  const [word, ...extra] = parsed.words;
  const problems: Problem[] = [];
  // `replicate help copy` is what many type.
  const wanted = word === "help" ? extra.shift() : word;
  const verb = verbNames.find((each) => each === wanted);
  const isAsking = parsed.given.has("help") || parsed.given.has("version") || word === "help";
  if (wanted !== undefined && verb === undefined) {
    problems.push({ subject: wanted, message: `is no command${didYouMean(wanted, verbNames)}` });
  }
  const operands = verb !== undefined && operandsOf(verb) !== undefined ? extra : [];
  for (const each of operands === extra ? [] : extra) {
    problems.push({ subject: each, message: "is one word too many (put values with spaces into quotes)" });
  }
  const known = verb === undefined ? optionNames : optionsOf(verb);
  const values: Record<string, unknown> = {};
  for (const [name, value] of parsed.given) {
    const found = known.find((each) => each === name);
    if (found !== undefined) {
      const checked = checkValue(found, value);
      if (checked.message === undefined) values[found] = checked.value;
      else problems.push({ subject: `--${name}`, message: checked.message });
    } else {
      const isElsewhere = verb !== undefined && optionNames.some((each) => each === name);
      const dashes = name.length === 1 ? "-" : "--";
      const guess = didYouMean(name, known).replace('"', '"--');
      problems.push({
        subject: `${dashes}${name}`,
        message: isElsewhere ? `is no option of ${verb}` : `is no option${guess}`,
      });
    }
  }
  checkCombinations(values, problems);
  if (problems.length === 0 && verb === undefined && !isAsking) {
    problems.push({ subject: "command", message: `is missing: ${verbNames.join(", ")}` });
  }
  if (problems.length > 0) throw usageInvalid(problems, verb);
  return { verb, operands, values: { ...values, ...(word === "help" ? { help: true } : {}) } };
}

export function usageInvalid(problems: readonly Problem[], verb: VerbName | undefined): ReplicateError {
  const [first] = problems;
  const message =
    problems.length === 1 ? `${first?.subject} ${first?.message}` : `${problems.length} mistakes`;
  const hint = `Run: replicate ${verb === undefined ? "" : `${verb} `}--help`;
  return new ReplicateError("USAGE_INVALID", message, {
    hint,
    problems: problems.length === 1 ? [] : problems,
  });
}

/** The settings among the values, by their path in the configuration file. */
export function settingsOf(values: Values, verb: VerbName): readonly GivenSetting[] {
  const setting = (name: OptionName, path: string): GivenSetting => ({
    origin: `--${name}`,
    path,
    value: values[name],
  });
  const selects =
    verb === "verify" || verb === "conflicts"
      ? []
      : [setting("tables", "tables"), setting("exclude-tables", "exclude")];
  return [
    setting("name", "name"),
    sideSetting("source", values),
    sideSetting("target", values),
    ...selects,
    setting("keyless", "keyless"),
    setting("keyless-limit", "keylessLimit"),
    setting("on-refusal", "onRefusal"),
    setting("schema-changes", "schemaChanges"),
    setting("direction", "direction"),
    setting("conflict", "conflict"),
    setting("delta-limit", "deltaLimit"),
    setting("jobs", "copy.jobs"),
    setting("index-jobs", "copy.indexJobs"),
    setting("part-size", "copy.partSize"),
    setting("index-memory", "copy.indexMemory"),
  ].filter(({ value }) => value !== undefined);
}

const connectionParts = ["host", "port", "user", "dbname", "sslmode"] as const;

/** A side given whole, or by its parts, which make a keyword string. */
function sideSetting(side: Side, values: Values): GivenSetting {
  const parts = connectionParts.flatMap((part) => {
    const value = values[`${side}-${part}`];
    return value === undefined ? [] : [`${part}='${value.replaceAll(/['\\]/g, String.raw`\$&`)}'`];
  });
  const isWhole = parts.length === 0;
  return {
    origin: isWhole ? `--${side}` : `--${side}-…`,
    path: side,
    value: isWhole ? values[side] : parts.join(" "),
  };
}

function checkCombinations(values: Readonly<Record<string, unknown>>, problems: Problem[]): void {
  const together = (one: OptionName, other: OptionName): void => {
    if (values[one] === undefined || values[other] === undefined) return;
    problems.push({ subject: `--${one}`, message: `does not go together with --${other}` });
  };
  const needs = (one: OptionName, other: OptionName): void => {
    if (values[one] !== undefined && values[other] === undefined)
      problems.push({ subject: `--${one}`, message: `needs --${other}` });
  };
  for (const side of ["source", "target"] as const) {
    const part = connectionParts.find((each) => values[`${side}-${each}`] !== undefined);
    if (part !== undefined) together(side, `${side}-${part}`);
  }
  together("source-only", "target-only");
  together("overwrite", "adopt");
  together("restart", "adopt");
  together("remap", "adopt");
  together("until-caught-up", "once");
  together("limit", "all");
  together("interleave", "margin");
  needs("overwrite-source", "overwrite");
  for (const option of ["shares", "source-share", "target-share"] as const) needs(option, "interleave");
}

function checkValue(
  name: OptionName,
  value: unknown,
): { readonly value?: unknown; readonly message?: string } {
  const { type, choices } = optionSpec(name);
  if (type === "flag") {
    const isSet = [value].flat().every((each) => each === true);
    return isSet ? { value: true } : { message: "takes no value" };
  }
  if (type === "list") {
    const list = (Array.isArray(value) ? value : [value]).filter((each) => each !== "");
    return list.length > 0 ? { value: list } : { message: "needs a value" };
  }
  if (Array.isArray(value)) return { message: "is given more than once" };
  if (typeof value !== "string" || value === "") return { message: "needs a value" };
  if (type === "integer") {
    return /^\d{1,15}$/.test(value)
      ? { value: Number(value) }
      : { message: "has to be a whole number, 0 or more" };
  }
  if (choices !== undefined && !choices.includes(value))
    return { message: `has to be one of ${choices.join(", ")}${didYouMean(value, choices)}` };
  return { value };
}

interface Parsed {
  readonly words: readonly string[];
  readonly given: ReadonlyMap<string, unknown>;
}

function parser(): (argv: readonly string[]) => Parsed {
  const specs = Object.fromEntries(
    optionNames.map((name): [string, Options] => {
      const { type } = optionSpec(name);
      if (type === "flag") return [name, { boolean: true }];
      return [name, type === "list" ? { array: true, string: true } : { string: true }];
    }),
  );
  return (argv) => {
    const parsed: Record<string, unknown> = yargs([...argv])
      .help(false)
      .version(false)
      .exitProcess(false)
      .parserConfiguration({
        "boolean-negation": false,
        "camel-case-expansion": false,
        "dot-notation": false,
        "parse-numbers": false,
        "parse-positional-numbers": false,
      })
      .options({ ...specs, help: { boolean: true, alias: "h" } })
      .fail(false)
      .parseSync();
    const given = new Map(Object.entries(parsed).filter(([name, value]) => isGiven(name, value)));
    return { words: (parsed["_"] as (string | number)[]).map(String), given };
  };
}

/** yargs also names itself, its aliases, and what was not given. */
function isGiven(name: string, value: unknown): boolean {
  return !["_", "$0", "h", "--"].includes(name) && value !== undefined && value !== false;
}
