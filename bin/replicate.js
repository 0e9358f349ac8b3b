#!/usr/bin/env node
// Before anything is loaded: the arguments may hold a password, and everybody may see them.
const argv = process.argv.slice(2);
process.title = "replicate";

const { main, reportCrash } = await import("../dist/cli/main.js");
process.on("uncaughtException", (error) => process.exit(reportCrash(error)));
const code = await main(argv);
// What was printed has to be out before the process ends, which must not wait for anything else.
for (const stream of [process.stdout, process.stderr]) {
  await new Promise((resolve) => stream.write("", resolve));
}
process.exit(code);
