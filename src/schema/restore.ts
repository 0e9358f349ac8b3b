/** Makes the archive of a source's schema, lists it, and restores the chosen entries of it. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { TableName } from "../catalog/patterns.ts";
import { ReplicateError } from "../errors.ts";
import type { ConnectionSettings } from "../postgres/conninfo.ts";
import { runProgram, type Outcome } from "./run-program.ts";
import type { Programs } from "./programs.ts";
import { parseToc, type Entry } from "./toc.ts";

/** Seconds that pg_dump waits for a table that somebody holds. */
const lockWaitSeconds = 60;

/** A name as a pattern of pg_dump that means it alone. */
const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

export interface DumpOptions {
  /** Schemas that are not to be touched, since the role may have no rights in them. */
  readonly excludeSchemas: readonly string[];
  /** Tables and sequences that are left out, since the role may not read them. */
  readonly excludeTables: readonly TableName[];
  /** server_encoding of the source. */
  readonly encoding: string;
  readonly signal: AbortSignal;
}

export interface RestoreOptions {
  readonly withOwners: boolean;
  readonly withPrivileges: boolean;
  readonly signal: AbortSignal;
}

/** The server's words about one entry; about none (0) where it is a setting of the session. */
export interface EntryError {
  readonly id: number;
  readonly message: string;
  /** The beginning of the statement. */
  readonly command?: string;
}

/** A dump of the schema in a folder of its own, which the caller removes. */
export class Archive {
  readonly #programs: Programs;
  readonly #folder: string;

  constructor(programs: Programs, folder: string) {
    this.#programs = programs;
    this.#folder = folder;
  }

  get #file(): string {
    return join(this.#folder, "schema.dump");
  }

  /** Throws PERMISSION_DENIED, LOCK_NOT_AVAILABLE, SERVER_UNREACHABLE, STATEMENT_FAILED, ABORTED. */
  async dump(source: ConnectionSettings, options: DumpOptions): Promise<void> {
    const outcome = await runProgram(
      this.#programs.pgDump,
      [
        "--format=custom",
        "--schema-only",
        "--no-password",
        // Their connection strings hold passwords.
        "--no-subscriptions",
        `--lock-wait-timeout=${lockWaitSeconds * 1000}`,
        // The names of the list are read as UTF-8; SQL_ASCII has nothing to be converted from.
        ...(options.encoding === "SQL_ASCII" ? [] : ["--encoding=UTF8"]),
        ...options.excludeSchemas.map((each) => `--exclude-schema=${quoted(each)}`),
        ...options.excludeTables.map(
          ({ schema, name }) => `--exclude-table=${quoted(schema)}.${quoted(name)}`,
        ),
        `--file=${this.#file}`,
        databaseArgument(source),
      ],
      options.signal,
      source,
    );
    if (outcome.code !== 0) throw programError("pg_dump", outcome);
  }

  async entries(signal: AbortSignal): Promise<Entry[]> {
    const list = await runProgram(this.#programs.pgRestore, ["--list", "--verbose", this.#file], signal);
    if (list.code !== 0) throw programError("pg_restore --list", list);
    return parseToc(list.stdout);
  }

  /** The SQL of these entries, as psql takes it. */
  async sql(ids: readonly number[], options: RestoreOptions): Promise<string> {
    const outcome = await this.#restore(ids, ["--file=-"], options);
    if (outcome.code !== 0) throw programError("pg_restore", outcome);
    return outcome.stdout;
  }

  /** Restores them one by one and goes on after an error. Returns the errors; throws where it could not work at all. */
  async restore(
    target: ConnectionSettings,
    ids: readonly number[],
    options: RestoreOptions,
  ): Promise<EntryError[]> {
    // Since version 15, only the verbose form says which entry an error belongs to.
    const args = ["--no-password", "--verbose", databaseArgument(target)];
    const outcome = await this.#restore(ids, args, options, target);
    const errors = restoreErrors(outcome.stderr);
    if (outcome.code !== 0 && errors.length === 0) throw programError("pg_restore", outcome);
    return errors.filter((each) => !isForeignSetting(each)).map(({ id, message }) => ({ id, message }));
  }

  async #restore(
    ids: readonly number[],
    args: readonly string[],
    options: RestoreOptions,
    server?: ConnectionSettings,
  ): Promise<Outcome> {
    const list = join(this.#folder, "entries.list");
    await writeFile(list, ids.map((id) => `${id};\n`).join(""));
    return await runProgram(
      this.#programs.pgRestore,
      [
        ...args,
        "--no-tablespaces",
        ...(options.withOwners ? [] : ["--no-owner"]),
        ...(options.withPrivileges ? [] : ["--no-privileges"]),
        `--use-list=${list}`,
        this.#file,
      ],
      options.signal,
      server,
    );
  }
}

/** As a keyword string, since a name alone may look like one. */
function databaseArgument({ database }: ConnectionSettings): string {
  return `--dbname=dbname='${database.replaceAll(/['\\]/g, String.raw`\$&`)}'`;
}

/**
 * What pg_restore says about the entries that failed, in its forms of before and since version 12. There is no SQLSTATE in it.
 * Its own words are English (see `childEnv`), those of the server between them may be in any language.
 */
export function restoreErrors(stderr: string): EntryError[] {
  const errors: { id: number; message: string; command?: string }[] = [];
  let id = 0;
  let isMessage = false;
  for (const line of stderr.split("\n")) {
    const entry = /from TOC entry (\d+);/i.exec(line);
    const error = /(?:could not execute query|query failed|COPY failed[^:]*): [^\s:]+: {1,2}(.*)$/.exec(line);
    if (/while INITIALIZING/i.test(line)) id = 0;
    if (entry !== null) id = Number(entry[1]);
    if (error !== null) {
      errors.push({ id, message: error[1] as string });
      isMessage = true;
    } else if (/^(\s*Command was:|pg_restore:)/.test(line)) {
      const last = errors.at(-1);
      const [, command] = /Command was: (.*)$/.exec(line) ?? [];
      if (isMessage && last !== undefined && command !== undefined) last.command = command;
      isMessage = false;
    } else if (isMessage && /^[^\s:]+: {2}/.test(line)) {
      const last = errors.at(-1) as { message: string };
      last.message += ` (${line.replace(/^[^\s:]+: +/, "")})`;
    }
  }
  return errors;
}

/** Clients set what newer servers know: transaction_timeout since 17, default_table_access_method since 12. */
function isForeignSetting({ id, command = "" }: EntryError): boolean {
  return id === 0 && command.startsWith("SET ");
}

/** From what a program says on stderr, because it says it nowhere else; see `childEnv` for its language. */
function programError(program: string, { code, stderr }: Outcome): ReplicateError {
  const said = stderr
    .split("\n")
    .filter((line) => /error|fatal|detail/i.test(line))
    .map((line) => line.replace(/^pg_(dump|restore): /, ""))
    .join(" ")
    .trim();
  const message = `${program} failed: ${said || `exit code ${code}`}`;
  if (/permission denied/.test(said)) {
    return new ReplicateError("PERMISSION_DENIED", message, {
      hint: "Grant the role SELECT on the table and USAGE on its schema, or connect as their owner.",
    });
  }
  if (/lock timeout|could not obtain lock/.test(said))
    return new ReplicateError("LOCK_NOT_AVAILABLE", message);
  if (/connection to server|could not connect/.test(said))
    return new ReplicateError("SERVER_UNREACHABLE", message);
  return new ReplicateError("STATEMENT_FAILED", message);
}
