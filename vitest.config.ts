import { availableParallelism } from "node:os";
import { join } from "node:path";
import { defineConfig, type ViteUserConfig } from "vitest/config";
import { BaseSequencer, type TestSpecification } from "vitest/node";

const minutes = 60_000;

// Each worker drives servers that need a core themselves, so many more workers than that only make the tests that watch
// the clock unreliable; one more makes use of the time in which the others wait.
const maxWorkers = Math.max(2, Math.floor(availableParallelism() / 2)) + 1;

/** The files that take longest, in this order: what begins last should be short, so that all workers end together. */
const longest = [
  "test/faults/cutover",
  "test/faults/crash-points",
  "test/faults/network",
  "test/matrix/types",
  "test/matrix/migration",
  "test/journeys/bucardo-cases",
  "test/postgres/cutover/cutover",
  "test/postgres/follow/schema-change",
  "test/postgres/state/migration",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification): number => {
      const at = longest.findIndex((name) => moduleId.endsWith(`/${name}.test.ts`));
      return at === -1 ? longest.length : at;
    };
    return (await super.sort(files)).toSorted((one, other) => rank(one) - rank(other));
  }
}

function project(name: string, include: string[], servers: boolean): ViteUserConfig {
  return {
    test: {
      name,
      include,
      environment: "node",
      pool: "forks",
      testTimeout: 2 * minutes,
      hookTimeout: 2 * minutes,
      teardownTimeout: 1 * minutes,
      // A second try is no excuse: .ci/run names the tests that needed it, so that their cause is looked for.
      ...(servers ? { globalSetup: ["test/support/global-setup.ts"], retry: 1 } : {}),
    },
  };
}

// Several runs in a row (see .ci/run) leave one result file each, to be added up afterwards.
const resultsFolder = process.env["REPLICATE_TEST_RESULTS"];
const reporters: string[] = resultsFolder === undefined ? ["default"] : ["default", "json"];

const config: ViteUserConfig = defineConfig({
  test: {
    pool: "forks",
    maxWorkers,
    sequence: { sequencer: LongestFirst },
    reporters,
    ...(resultsFolder === undefined
      ? {}
      : { outputFile: { json: join(resultsFolder, `${process.pid}.json`) } }),
    projects: [
      project("unit", ["test/unit/**/*.test.ts", "test/documents/**/*.test.ts"], false),
      project(
        "postgres",
        ["test/postgres/**/*.test.ts", "test/journeys/**/*.test.ts", "test/package/**/*.test.ts"],
        true,
      ),
      project("faults", ["test/faults/**/*.test.ts"], true),
      project("matrix", ["test/matrix/**/*.test.ts"], true),
    ],
  },
});

export default config;
