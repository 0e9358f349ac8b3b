/** Finds PostgreSQL's client programs: of those that are installed, the pair that fits both servers. */
import { execFile } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { ReplicateError } from "../errors.ts";

export interface Programs {
  readonly pgDump: string;
  readonly pgRestore: string;
  /** Major version of both. */
  readonly major: number;
}

/** Folders with one version each, by their parent: Debian, Red Hat, Homebrew, Postgres.app. */
const versionFolders: readonly (readonly [parent: string, name: RegExp, rest: string])[] = [
  ["/usr/lib/postgresql", /^\d+$/, "bin"],
  ["/usr", /^pgsql-\d+$/, "bin"],
  ["/opt/homebrew/opt", /^(postgresql(@\d+)?|libpq)$/, "bin"],
  ["/usr/local/opt", /^(postgresql(@\d+)?|libpq)$/, "bin"],
  ["/Applications/Postgres.app/Contents/Versions", /^\d+$/, "bin"],
];

/**
 * pg_dump reads servers up to its own version. Of those that can read the source, the one nearest to the target's
 * version is taken, because what it writes is meant for servers of its own version. The variable PGBIN names the one
 * folder to look in. Throws CLIENT_MISSING.
 */
export async function findPrograms(
  env: NodeJS.ProcessEnv,
  majors: { readonly source: number; readonly target: number },
  folders: readonly string[] = programFolders(env),
): Promise<Programs> {
  const found = (await Promise.all(folders.map(programsIn))).filter((each) => each !== undefined);
  const [best] = found
    .filter(({ major }) => major >= majors.source)
    .sort(
      (one, other) =>
        Math.abs(one.major - majors.target) - Math.abs(other.major - majors.target) ||
        other.major - one.major,
    );
  if (best !== undefined) return best;
  const wanted = Math.max(majors.source, majors.target);
  const known = [...new Set(found.map(({ major }) => major))].sort((one, other) => one - other);
  const there = known.length === 0 ? "none is installed" : `found: ${known.join(", ")}`;
  const place = env["PGBIN"] ? ` in PGBIN (${env["PGBIN"]})` : "";
  throw new ReplicateError(
    "CLIENT_MISSING",
    `pg_dump and pg_restore of version ${majors.source} or newer are needed${place}; ${there}`,
    {
      hint:
        `Install the package postgresql-client-${wanted} (Debian, Ubuntu), postgresql${wanted} (Red Hat) or ` +
        `postgresql@${wanted} (Homebrew), or name its folder in PGBIN. Or go on with a schema made by hand: ` +
        "`init` needs the tables and their keys on the target, nothing more.",
    },
  );
}

function programFolders(env: NodeJS.ProcessEnv): readonly string[] {
  if (env["PGBIN"]) return [env["PGBIN"]];
  const path = (env["PATH"] ?? process.env["PATH"] ?? "").split(delimiter).filter((each) => each !== "");
  const versioned = versionFolders.flatMap(([parent, name, rest]) => {
    if (!existsSync(parent)) return [];
    const names = readdirSync(parent).filter((each) => name.test(each));
    return names.map((each) => join(parent, each, rest));
  });
  return [...new Set([...versioned, ...path])];
}

async function programsIn(folder: string): Promise<Programs | undefined> {
  const pgDump = join(folder, "pg_dump");
  const pgRestore = join(folder, "pg_restore");
  if (!existsSync(pgDump) || !existsSync(pgRestore)) return undefined;
  const majors = await Promise.all([majorOf(pgDump), majorOf(pgRestore)]);
  const [major, other] = majors;
  // Each reads archives of its own version and of older ones.
  return major === undefined || other === undefined || other < major
    ? undefined
    : { pgDump, pgRestore, major };
}

/** Undefined where the program does not run, or says something else. Before version 10, the major had two numbers. */
async function majorOf(program: string): Promise<number | undefined> {
  const said = await promisify(execFile)(program, ["--version"], { timeout: 10_000 }).catch(() => undefined);
  const found = /\(PostgreSQL\) (\d+)/.exec(said?.stdout ?? "");
  return found === null ? undefined : Number(found[1]);
}
