import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { promisify } from "node:util";

/** The direct children of a process. */
export async function childrenOf(pid: number): Promise<number[]> {
  try {
    return numbers(await readFile(`/proc/${pid}/task/${pid}/children`, "utf8"));
  } catch {
    // Systems without /proc, and kernels built without this file.
  }
  const { stdout } = await promisify(execFile)("ps", ["-A", "-o", "pid=,ppid="]);
  return stdout
    .split("\n")
    .map(numbers)
    .filter(([, parent]) => parent === pid)
    .flatMap(([child]) => (child === undefined ? [] : [child]));
}

/** The start time of a process in clock ticks since boot; undefined without /proc, or when it has ended. */
export function startOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    // The second field is the command in parentheses and may hold blanks.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie has ended, though nobody may be there to reap it.
    return fields[0] === "Z" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** With the start time given, a later process of the same pid does not count. */
export function isRunning(pid: number, startedAt?: string): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EPERM") return false;
  }
  const start = startOf(pid);
  // Our own start is known wherever /proc is, so an unknown one there is that of a process which ended.
  if (start === undefined) return startOf(process.pid) === undefined;
  return startedAt === undefined || start === startedAt;
}

function numbers(text: string): number[] {
  return text
    .split(/\s+/)
    .filter((word) => word !== "")
    .map(Number);
}
