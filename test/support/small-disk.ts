import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

import { giveToServerUser } from "./run-folder.ts";

const run = promisify(execFile);

/** A file system of its own that is soon full. */
export interface SmallDisk extends AsyncDisposable {
  path: string;
  /** Makes it as large as that. */
  resize: (megabytes: number) => Promise<void>;
}

/** Undefined where nothing can be mounted. */
export async function smallDisk(megabytes: number): Promise<SmallDisk | undefined> {
  const path = await mkdtemp(join(tmpdir(), "pg-replicate-disk-"));
  try {
    await run("mount", ["-t", "tmpfs", "-o", `size=${megabytes}m`, "tmpfs", path]);
  } catch {
    await rm(path, { recursive: true });
    return undefined;
  }
  giveToServerUser(path);
  return {
    path,
    resize: async (size) => {
      await run("mount", ["-o", `remount,size=${size}m`, path]);
    },
    [Symbol.asyncDispose]: async () => {
      await run("umount", ["--lazy", path]);
      await rm(path, { recursive: true });
    },
  };
}
