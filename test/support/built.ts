import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Compiles if a source is newer than what was compiled; `npm test` has done so before. For tests that start processes, which
 * run what was built.
 */
export function ensureBuilt(): void {
  const built = `${root}dist/cli/main.js`;
  const builtAt = existsSync(built) ? statSync(built).mtimeMs : 0;
  const sources = readdirSync(`${root}src`, { recursive: true, encoding: "utf8" });
  const isStale = sources.some(
    (path) => path.endsWith(".ts") && statSync(`${root}src/${path}`).mtimeMs > builtAt,
  );
  // Errors of types are found elsewhere; what was written can be run.
  if (isStale) spawnSync("npm", ["run", "--silent", "build"], { cwd: root, stdio: "ignore" });
}
