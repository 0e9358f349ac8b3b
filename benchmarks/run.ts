/** `npm run bench -- NAME [options]`: runs one benchmark, prints a table, and writes JSON where asked. */
import { capture } from "./capture.ts";
import { copy } from "./copy.ts";
import { cutover } from "./cutover.ts";
import { follow } from "./follow.ts";
import { hooks } from "./hooks.ts";
import { link } from "./link.ts";
import { mapping } from "./mapping.ts";
import { memory } from "./memory.ts";
import type { Benchmark } from "./support/benchmark.ts";
import { readOptions, usage, type Options } from "./support/options.ts";
import { Report } from "./support/report.ts";
import { stopServers } from "./support/servers.ts";
import { twoWay } from "./two-way.ts";
import { verify } from "./verify.ts";

const benchmarks: Readonly<Record<string, Benchmark>> = {
  copy,
  capture,
  follow,
  verify,
  memory,
  link,
  mapping,
  hooks,
  cutover,
  "two-way": twoWay,
};

const [name = "", ...args] = process.argv.slice(2);
const benchmark = benchmarks[name];
let options: Options;
try {
  if (benchmark === undefined)
    throw new TypeError(name === "" ? "which one?" : `there is no benchmark ${name}`);
  options = readOptions(args, benchmark.defaults);
} catch (error) {
  if (!(error instanceof TypeError)) throw error;
  console.error(`${error.message}\n\n${usage}`);
  process.exit(2);
}

let isEnding = false;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => void end(130));

try {
  const report = new Report();
  await benchmark.run(options, report);
  await report.end(name, options);
  await end(0);
} catch (error) {
  // What fails because everything is being torn down needs no telling.
  if (!isEnding) console.error(error);
  await end(1);
}

async function end(code: number): Promise<void> {
  if (isEnding) return await new Promise(() => undefined);
  isEnding = true;
  await stopServers();
  process.exit(code);
}
