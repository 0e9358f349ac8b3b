import { resolveConfig, type ResolvedConfig } from "../../index.ts";
import { open, printResult, type Command, type CommandContext } from "../command.ts";
import { runbookMarkdown, runbookShell, shellWord, type Place, type RunbookFacts } from "../runbook.ts";

/** Keywords of a connection, by the variables in which a resolved one is kept. Passwords are left out. */
const keywords = {
  PGHOST: "host",
  PGPORT: "port",
  PGUSER: "user",
  PGDATABASE: "dbname",
  PGSSLMODE: "sslmode",
  PGSSLROOTCERT: "sslrootcert",
  PGSSLCERT: "sslcert",
  PGSSLKEY: "sslkey",
  PGOPTIONS: "options",
} as const;

export const runbook: Command = async (context) => {
  const { values, output } = context;
  const facts = await factsOf(context);
  const text = values.shell === true ? runbookShell(facts) : runbookMarkdown(facts);
  printResult(context, { format: values.shell === true ? "shell" : "markdown", text });
  output.print(...text.split("\n"));
  return 0;
};

async function factsOf(context: CommandContext): Promise<RunbookFacts> {
  const { values, options, terminal, signal } = context;
  const settings = resolveConfig(options, terminal.env);
  await using sync = await open(context);
  // A runbook is wanted before anything is set up, too, and while a server is away.
  const status = await sync.status({ signal }).catch(() => null);
  const config = values.config ?? terminal.env["REPLICATE_CONFIG"];
  const list = (flag: string, patterns: readonly string[] | undefined): string[] =>
    patterns === undefined || patterns.length === 0 ? [] : [flag, ...patterns.map(shellWord)];
  const selected = config === undefined ? settings : undefined;
  return {
    sync: settings.name,
    source: placeOf(settings.source, "SOURCE", terminal.env),
    target: placeOf(settings.target, "TARGET", terminal.env),
    config,
    selection: [
      ...list("--tables", selected?.tables ?? values.tables),
      ...list("--exclude-tables", selected?.exclude ?? values["exclude-tables"]),
    ],
    setup: selected?.keyless === "reload" ? ["--keyless", "reload"] : [],
    switching: [
      ...(values.timeout === undefined ? [] : ["--timeout", shellWord(values.timeout)]),
      ...(values["on-open"] === undefined ? [] : ["--on-open", shellWord(values["on-open"])]),
      ...(values["no-reverse"] === true ? ["--no-reverse"] : []),
    ],
    status,
  };
}

function placeOf(
  { label, variables, password }: ResolvedConfig["source"],
  side: "SOURCE" | "TARGET",
  env: NodeJS.ProcessEnv,
): Place {
  const connection = Object.entries(keywords)
    .flatMap(([variable, keyword]) => {
      const value = variables?.[variable];
      if (value === undefined) return [];
      return [`${keyword}=${/^[^\s'\\]+$/.test(value) ? value : `'${value.replaceAll(/['\\]/g, "\\$&")}'`}`];
    })
    .join(" ");
  // A password that libpq's own places give is found there again.
  const isGiven = variables?.["PGPASSWORD"] !== undefined && env["PGPASSWORD"] !== variables["PGPASSWORD"];
  return {
    label,
    connection,
    needsPassword: password !== undefined && (isGiven || env[`REPLICATE_${side}_PASSWORD`] !== undefined),
  };
}
