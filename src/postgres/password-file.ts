/** Password files: ~/.pgpass or PGPASSFILE, as libpq reads them. */
import { readFileSync, statSync } from "node:fs";

export interface PasswordLookup {
  readonly password: string | undefined;
  /** Why the file was not used although it exists; nothing of its content. */
  readonly warning: string | undefined;
}

/** The password of the first line that fits: `host:port:database:user:password`, `*` for anything. Never throws. */
export function passwordFromFile(
  path: string,
  login: { readonly host: string; readonly port: number; readonly database: string; readonly user: string },
): PasswordLookup {
  let text: string;
  try {
    const file = statSync(path);
    if (!file.isFile()) return unusable(path, "it is not a plain file");
    if (process.platform !== "win32" && (file.mode & 0o077) !== 0) {
      return unusable(path, `group or others may read it: chmod 0600 ${path}`);
    }
    text = readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    return code === "ENOENT" || code === "ENOTDIR"
      ? { password: undefined, warning: undefined }
      : unusable(path, `it cannot be read (${code})`);
  }
  const wanted = [login.host, String(login.port), login.database, login.user];
  for (const line of text.split(/\r?\n/)) {
    if (line === "" || line.startsWith("#")) continue;
    const password = passwordOfLine(line, wanted);
    if (password !== undefined && password !== "") return { password, warning: undefined };
  }
  return { password: undefined, warning: undefined };
}

function unusable(path: string, why: string): PasswordLookup {
  return { password: undefined, warning: `the password file ${path} was ignored: ${why}` };
}

/** A backslash takes the next character as it is; the password is all that is left after four fields. */
function passwordOfLine(line: string, wanted: readonly string[]): string | undefined {
  const field = /((?:\\[^]|[^\\:])*\\?):/y;
  for (const each of wanted) {
    const written = field.exec(line)?.[1];
    if (written === undefined || (written !== "*" && unescape(written) !== each)) return undefined;
  }
  return unescape(line.slice(field.lastIndex));
}

function unescape(text: string): string {
  return text.replaceAll(/\\([^])/g, "$1");
}
