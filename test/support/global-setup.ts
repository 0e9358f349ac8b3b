import type { TestProject } from "vitest/node";

import { serverVersion } from "./admin.ts";
import { allVersions, installVersions } from "./binaries.ts";
import { ensureBuilt } from "./built.ts";
import { type Cluster, startCluster } from "./cluster.ts";
import { removeRunFolder, runFolder } from "./run-folder.ts";

/** What the tests learn about the servers that were started for all of them. */
export interface SharedServers {
  /** Servers given from outside; they stand in for any version that a test asks for. */
  source?: string | undefined;
  target?: string | undefined;
  /** The admin URLs of the servers started here, by major version. */
  byVersion: Record<string, string>;
  /** The versions that a test gets which does not say. */
  sourceVersion: string;
  targetVersion: string;
}

declare module "vitest" {
  export interface ProvidedContext {
    servers: SharedServers;
  }
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  runFolder("memory");
  ensureBuilt();
  project.onTestsRerun(ensureBuilt);
  // CI systems set variables that have no value to the empty string.
  const source = process.env["REPLICATE_TEST_SOURCE_URL"] || undefined;
  const target = process.env["REPLICATE_TEST_TARGET_URL"] || undefined;
  if (source !== undefined && target !== undefined) {
    await Promise.all([serverVersion(source), serverVersion(target)]);
    project.provide("servers", { source, target, byVersion: {}, sourceVersion: "13", targetVersion: "18" });
    return async () => removeRunFolder();
  }
  if (source !== undefined || target !== undefined) {
    throw new Error("REPLICATE_TEST_SOURCE_URL and REPLICATE_TEST_TARGET_URL belong together");
  }
  const [sourceVersion = "13", targetVersion = "18"] = (
    process.env["REPLICATE_TEST_VERSIONS"] ?? "13:18"
  ).split(":");
  const embedded = !(process.env["REPLICATE_TEST_PG"] ?? "").startsWith("docker");
  const versions = project.name === "matrix" ? allVersions : [...new Set([sourceVersion, targetVersion])];
  if (embedded && versions.some((version) => version !== "13" && version !== "18")) await installVersions();

  const clusters: Cluster[] = [];
  const stopAll = async (): Promise<void> => {
    await Promise.all(clusters.splice(0).map((cluster) => cluster.stop()));
    removeRunFolder();
  };
  const byVersion: Record<string, string> = {};
  try {
    // All are waited for, so that none is left running by the failure of another.
    const started = await Promise.allSettled(
      versions.map(async (version) => {
        const cluster = await startCluster({ version });
        clusters.push(cluster);
        byVersion[version] = cluster.adminUrl;
      }),
    );
    for (const result of started) if (result.status === "rejected") throw result.reason;
  } catch (error) {
    await stopAll();
    throw error;
  }
  project.provide("servers", { byVersion, sourceVersion, targetVersion });
  return stopAll;
}
