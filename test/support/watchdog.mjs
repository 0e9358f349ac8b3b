// Waits for the end of its standard input, which is the end of the process that started it, and then
// ends the servers and removes the folders that process had announced, one per line:
//   server PID START   a postmaster was started (START: field 22 of /proc/PID/stat, empty if unknown)
//   gone PID           it has been stopped in an orderly way
//   folder PATH        a folder to remove at the end
import { readFileSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => undefined);

/** @type {Map<number, string>} */
const servers = new Map();
/** @type {Set<string>} */
const folders = new Set();

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [word, argument = "", start = ""] = line.split(" ");
    if (word === "server") servers.set(Number(argument), start);
    else if (word === "gone") servers.delete(Number(argument));
    else if (word === "folder") folders.add(line.slice("folder ".length));
  })
  .on("close", () => void cleanUp());

async function cleanUp() {
  // SIGQUIT is PostgreSQL's immediate shutdown: it takes all backends along, which SIGKILL would not.
  for (const pid of servers.keys()) signalServer(pid, "SIGQUIT");
  const deadline = Date.now() + 10_000;
  while ([...servers.keys()].some(isRunning) && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  for (const pid of servers.keys()) signalServer(pid, "SIGKILL");
  for (const folder of folders)
    rmSync(folder, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}

/** @param {number} pid @param {NodeJS.Signals} signal */
function signalServer(pid, signal) {
  try {
    if (isRunning(pid)) process.kill(pid, signal);
  } catch {
    // It ended between the two calls.
  }
}

/** @param {number} pid */
function isRunning(pid) {
  try {
    process.kill(pid, 0);
    // The pid may have been given to another process since.
    const start = servers.get(pid);
    return start === "" || start === undefined || startOf(pid) === start;
  } catch {
    return false;
  }
}

/** @param {number} pid */
function startOf(pid) {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    // A zombie has ended; nobody may be left to reap it.
    return fields[0] === "Z" ? "ended" : (fields[19] ?? "");
  } catch {
    return "";
  }
}
