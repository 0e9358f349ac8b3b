/** Settings from where people put them: the configuration file, REPLICATE_… variables, flags. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { isAlias, isScalar, LineCounter, parseDocument, visit } from "yaml";
import { checkOptions, type SyncOptions } from "./options.ts";
import { withModulesFrom } from "./conflict-policy.ts";
import type { Problem } from "../errors.ts";
import { isSamePlace, placeOf, placeText } from "../postgres/place.ts";
import { Check, configInvalid } from "./checks.ts";

/** What a configuration file says, not yet checked, and what is wrong with its text. */
export interface ConfigFile {
  readonly settings: Readonly<Record<string, unknown>>;
  readonly problems: readonly Problem[];
}

/** A setting that was given by other means than the file. Undefined: not given. */
export interface GivenSetting {
  /** How the user knows it: `--jobs`, `REPLICATE_SOURCE`. Problems are reported under this name. */
  readonly origin: string;
  /** Of the configuration file: `copy.jobs`. */
  readonly path: string;
  readonly value: unknown;
}

export interface OptionSources {
  /** Path of the configuration file; REPLICATE_CONFIG stands for it. */
  readonly file?: string | undefined;
  /** Win over the variables REPLICATE_NAME, REPLICATE_SOURCE and REPLICATE_TARGET, and these over the file. */
  readonly flags?: readonly GivenSetting[];
}

/**
 * Reads a YAML file. `${NAME}` in any value is replaced by the variable of that name, `$${` stands for `${` itself; a
 * variable that is not set or empty is a problem, as is everything that is not YAML. No message quotes the file, which may hold passwords.
 */
export function readConfigFile(path: string, env: NodeJS.ProcessEnv): ConfigFile {
  const fail = (message: string): ConfigFile => failed(path, message);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return fail(code === "ENOENT" ? "there is no such file" : `the file cannot be read: ${code}`);
  }
  if (text.length > MOST_CHARACTERS) return fail("the file is larger than 1 MB, which no settings are");
  try {
    return readYaml(path, text, env);
  } catch (error) {
    // So deep that the parser ran out of stack, or more than it is willing to build. Its words may quote the file.
    if (error instanceof RangeError) return fail("the file is nested too deeply");
    if (error instanceof ReferenceError)
      return fail("its aliases (*name) stand for too much, or for themselves");
    throw error;
  }
}

const MOST_CHARACTERS = 1024 ** 2;

function failed(path: string, message: string): ConfigFile {
  return { settings: {}, problems: [{ subject: path, message }] };
}

function readYaml(path: string, text: string, env: NodeJS.ProcessEnv): ConfigFile {
  const lineCounter = new LineCounter();
  const document = parseDocument(text, { lineCounter, prettyErrors: false });
  if (document.errors.length > 0) {
    const problems = document.errors.map(({ code, pos }) => {
      const { line, col } = lineCounter.linePos(pos[0]);
      const what = code.toLowerCase().replaceAll("_", " ");
      return { subject: path, message: `line ${line}, column ${col} is not correct YAML (${what})` };
    });
    return { settings: {}, problems };
  }
  const problems: Problem[] = [];
  visit(document, {
    Node(role, node, ancestors) {
      const subject = subjectOf(ancestors) ?? path;
      if (isAlias(node)) {
        const { line } = lineCounter.linePos(node.range?.[0] ?? 0);
        const meant = node.resolve(document);
        if (meant === undefined) {
          const message = `line ${line}: a value that begins with * has to be in quotes: "*.audit_*"`;
          problems.push({ subject: path, message });
        } else if (ancestors.includes(meant)) {
          problems.push({
            subject: path,
            message: `line ${line}: the alias stands for a part that it is in`,
          });
        }
      }
      // Keys are names, not values.
      if (isScalar(node) && typeof node.value === "string" && role !== "key") {
        node.value = expand(node.value, env, (message) => problems.push({ subject, message }));
      }
    },
  });
  // Converting would throw at an alias without an anchor.
  if (problems.some(({ subject }) => subject === path)) return { settings: {}, problems };
  const settings: unknown = document.toJS() ?? {};
  if (typeof settings !== "object" || settings === null || Array.isArray(settings)) {
    return failed(path, "the file has to consist of names and values, such as source: postgresql://…");
  }
  return { settings: settings as Record<string, unknown>, problems };
}

/**
 * Puts the settings of flags, variables and file together and checks them all.
 * Throws CONFIG_INVALID with every problem of every origin.
 */
export function loadOptions(sources: OptionSources, env: NodeJS.ProcessEnv): SyncOptions {
  const path = sources.file ?? (env["REPLICATE_CONFIG"] || undefined);
  const file: ConfigFile = path === undefined ? { settings: {}, problems: [] } : readConfigFile(path, env);
  const given = [
    ...["name", "source", "target"].map((setting) => {
      const origin = `REPLICATE_${setting.toUpperCase()}`;
      return { origin, path: setting, value: env[origin] || undefined };
    }),
    ...(sources.flags ?? []),
  ].filter(({ value }) => value !== undefined);
  const origins = new Map<string, string>();
  const settings = withModulesFrom(structuredClone(file.settings), dirname(path ?? ""));
  if (typeof settings["hooks"] === "string" && settings["hooks"] !== "")
    settings["hooks"] = resolve(dirname(path ?? ""), settings["hooks"]);
  const clashes = path === undefined ? [] : clashingSides(path, file.settings, given, env);
  for (const each of given) {
    origins.set(each.path, each.origin);
    assign(settings, each.path.split("."), each.value);
  }

  // A variable that is missing in a line which a flag replaces does not matter.
  const fileProblems = file.problems.filter(({ subject }) => !origins.has(subject));
  const reported = new Set(fileProblems.map(({ subject }) => subject));
  const isUnread = path !== undefined && reported.has(path);
  const found = checkOptions(settings as unknown as SyncOptions, env).problems.filter(
    // What is missing may stand in the file that could not be read; what has a problem already needs no second.
    ({ subject }) =>
      !reported.has(subject) &&
      !(isUnread && ["source", "target"].includes(subject) && settings[subject] === undefined),
  );
  const problems = [
    ...clashes,
    ...fileProblems,
    ...found.map(({ subject, ...rest }) => ({ subject: origins.get(subject) ?? subject, ...rest })),
  ];
  if (problems.length > 0) throw configInvalid(problems);
  return settings as unknown as SyncOptions;
}

/**
 * Variables win over the file, but not where they lead to another database: they may be left over in a shell, and the file
 * be another sync's. What the command line says decides.
 */
function clashingSides(
  path: string,
  settings: ConfigFile["settings"],
  given: readonly GivenSetting[],
  env: NodeJS.ProcessEnv,
): Problem[] {
  return (["source", "target"] as const).flatMap((side) => {
    // The last one counts, and flags come last.
    const chosen = given.findLast((each) => each.path === side);
    const inFile = settings[side];
    if (chosen === undefined || !chosen.origin.startsWith("REPLICATE_") || inFile == null) return [];
    const check = new Check();
    const [one, other] = [chosen.value, inFile].map((value) => check.connection(side, value, env));
    // What cannot be read is reported elsewhere, or does not matter, as it is not used.
    if (one === undefined || other === undefined || isSamePlace(one, other)) return [];
    const names = [one, other].map((each) => placeText(placeOf(each)));
    return [
      {
        subject: chosen.origin,
        message: `leads to ${names[0]}, and ${side} in ${path} to ${names[1]}: unset the variable, or say with --${side} which one is meant`,
      },
    ];
  });
}

function expand(text: string, env: NodeJS.ProcessEnv, problem: (message: string) => void): string {
  return text.replaceAll(/\$\$\{|\$\{([A-Za-z_]\w*)\}|\$\{/g, (whole, name: string | undefined) => {
    if (whole === "$${") return "${";
    if (name === undefined) {
      problem("a ${ does not begin a variable ${NAME}: write $${ for the characters themselves");
      return whole;
    }
    const value = env[name];
    if (value === undefined || value === "") problem(`the variable ${name} is not set`);
    return value ?? "";
  });
}

/** The setting that a node of the file belongs to: `copy.jobs`. */
function subjectOf(ancestors: readonly unknown[]): string | undefined {
  const keys = ancestors.flatMap((each) => {
    const key = (each as { key?: unknown }).key;
    return isScalar(key) ? [String(key.value)] : [];
  });
  return keys.length === 0 ? undefined : keys.join(".");
}

function assign(
  settings: Record<string, unknown>,
  [first = "", ...rest]: readonly string[],
  value: unknown,
): void {
  if (rest.length === 0) {
    settings[first] = value;
    return;
  }
  const inner = settings[first];
  const group = typeof inner === "object" && inner !== null && !Array.isArray(inner) ? { ...inner } : {};
  settings[first] = group;
  assign(group as Record<string, unknown>, rest, value);
}
