import { existsSync } from "node:fs";

import { chromium, type Browser } from "playwright-core";

// A browser of the machine's own, without a window.

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Where a browser is; undefined: there is none, and tests in it are skipped. */
export const browserPath: string | undefined = [process.env["CHROMIUM"], ...places].find(
  (path) => path !== undefined && existsSync(path),
);

export async function openBrowser(): Promise<Browser> {
  if (browserPath === undefined) throw new Error("there is no browser on this machine");
  return await chromium.launch({
    executablePath: browserPath,
    args: ["--no-sandbox", "--disable-dev-shm-usage"],
  });
}
