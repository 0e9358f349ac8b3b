import type { ConflictFilter, ConflictKind, Problem, Side } from "../../index.ts";
import { usageInvalid } from "../arguments.ts";
import { nextCommand, open, printResult, type Command, type CommandContext } from "../command.ts";
import { conflictLines } from "../conflict-text.ts";
import { count } from "../../text/format.ts";

const defaultLimit = 20;

export const conflicts: Command = async (context) => {
  if (context.operands.length > 0) return await resolve(context, resolveOrders(context));
  checkListing(context);
  return await list(context);
};

interface ResolveOrders {
  readonly winner: Side;
  /** Undefined: all that are pending. */
  readonly ids: readonly number[] | undefined;
}

async function list(context: CommandContext): Promise<number> {
  const { values, output, signal } = context;
  await using sync = await open(context);
  const found = await sync.conflicts({
    ...filterOf(context),
    ...(values.pending === true ? { state: "pending" } : {}),
    limit: values.all === true ? Infinity : (values.limit ?? defaultLimit),
    signal,
  });
  printResult(context, { conflicts: found });
  for (const each of found) output.print(...conflictLines(each), "");
  const pending = found.filter(({ resolved }) => !resolved).length;
  output.print(
    found.length === 0 ? "no conflicts" : `${count(found.length, "conflict")}, ${pending} to be resolved`,
    ...(pending > 0 ? [`next: ${nextCommand(context, "conflicts resolve ID --with source|target")}`] : []),
  );
  return 0;
}

async function resolve(context: CommandContext, { winner, ids }: ResolveOrders): Promise<number> {
  const { output, signal } = context;
  if (ids === undefined && !(await isConfirmed(context, winner))) {
    output.print("nothing was changed");
    return 1;
  }
  await using sync = await open(context);
  const report = await sync.resolveConflict(ids ?? filterOf(context), winner, { signal });
  printResult(context, report);
  const { resolved, unchanged } = report;
  output.print(
    `${count(resolved.length, "conflict")} resolved with the ${winner}; follow takes the rows over`,
    ...(unchanged.length > 0 ? [`resolved like that before: ${unchanged.join(", ")}`] : []),
  );
  return 0;
}

function filterOf({ values }: CommandContext): Omit<ConflictFilter, "state"> {
  return {
    ...(values.tables === undefined ? {} : { tables: values.tables }),
    // Checked by the library.
    ...(values.kind === undefined ? {} : { kinds: values.kind as readonly ConflictKind[] }),
    ...(values.since === undefined ? {} : { since: values.since }),
  };
}

function checkListing({ values }: CommandContext): void {
  const problems = (["with", "all-pending", "yes"] as const).flatMap((name) =>
    values[name] === undefined ? [] : [{ subject: `--${name}`, message: "belongs to conflicts resolve" }],
  );
  if (problems.length > 0) throw usageInvalid(problems, "conflicts");
}

function resolveOrders({ operands, values }: CommandContext): ResolveOrders {
  const [word, ...ids] = operands;
  const problems: Problem[] = [];
  const problem = (subject: string, message: string): number => problems.push({ subject, message });
  if (word !== "resolve")
    problem(word ?? "", "is not what conflicts can do: say resolve, or nothing for a list");
  for (const id of ids) if (!/^\d{1,15}$/.test(id)) problem(id, "is not the number of a conflict");
  const isAll = values["all-pending"] === true;
  if (isAll === ids.length > 0) problem("ID", "needs to be given, or --all-pending instead");
  if (values.with === undefined) problem("--with", "is missing: source or target");
  for (const name of ["pending", "limit", "all"] as const)
    if (values[name] !== undefined) problem(`--${name}`, "belongs to the list of conflicts");
  for (const name of isAll ? [] : (["tables", "kind", "since"] as const))
    if (values[name] !== undefined) problem(`--${name}`, "goes together with --all-pending only");
  if (problems.length > 0) throw usageInvalid(problems, "conflicts");
  return { winner: values.with === "target" ? "target" : "source", ids: isAll ? undefined : ids.map(Number) };
}

async function isConfirmed(context: CommandContext, winner: Side): Promise<boolean> {
  const { terminal, values, signal } = context;
  if (values.yes === true) return true;
  if (terminal.ask === undefined)
    throw usageInvalid([{ subject: "--yes", message: "is needed where nobody can be asked" }], "conflicts");
  await using sync = await open(context);
  const pending = await sync.conflicts({ ...filterOf(context), state: "pending", limit: Infinity, signal });
  if (pending.length === 0) return true;
  const other = winner === "source" ? "target" : "source";
  const question = `Resolve ${count(pending.length, "conflict")}, replacing rows of the ${other} by those of the ${winner}? [y/N] `;
  return /^y(es)?$/i.test((await terminal.ask(question, signal)).trim());
}
