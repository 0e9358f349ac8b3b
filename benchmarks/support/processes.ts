import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

let ticksPerSecond: number | undefined;

/** CPU that a process has used so far, user and system. Needs /proc, and the process on this machine. */
export function cpuSecondsOf(pid: number): number {
  return sumOfFields(pid, 11);
}

/** CPU of all children of a process that have ended: of a postmaster, the sessions that are over. Needs the same. */
export function cpuSecondsOfEnded(pid: number): number {
  return sumOfFields(pid, 13);
}

function sumOfFields(pid: number, first: number): number {
  ticksPerSecond ??= Number(execFileSync("getconf", ["CLK_TCK"], { encoding: "utf8" }));
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  // The second field is the command in parentheses and may hold blanks.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[first]) + Number(fields[first + 1])) / ticksPerSecond;
}
