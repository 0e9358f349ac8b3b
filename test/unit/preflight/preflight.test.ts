import { describe, expect, it } from "vitest";

import { ageFindings, type Ages } from "../../../src/preflight/activity.ts";
import { encryptionFindings, limitFindings, type Limits } from "../../../src/preflight/connections.ts";
import {
  diskFindings,
  snapshotFindings,
  targetSettings,
  type Settings,
} from "../../../src/preflight/load.ts";

// What servers for tests are never like: old, full, far away, hundreds of gigabytes large.

const gigabyte = 1024 ** 3;

describe("connections", () => {
  const server = { database: "shop", role: "app", isSuperuser: false };
  const config = { copy: { jobs: 4, indexJobs: 2, partBytes: 1, indexMemoryBytes: 1 } };
  const none: Limits = {
    limit: 100, reserved: 3, used: 10, databaseLimit: -1, databaseUsed: 5, roleLimit: -1, roleUsed: 5,
  }; // prettier-ignore

  it("are enough", () => {
    expect(limitFindings("source", none, server, config)).toEqual([]);
    expect(limitFindings("target", none, server, config)).toEqual([]);
  });

  it("are not, of the server, the database and the role, each with the number that is", () => {
    const limits = { ...none, limit: 15, databaseLimit: 10, roleLimit: 5 };
    const findings = limitFindings("target", limits, server, config);
    expect(findings.map(({ severity, subject }) => `${severity} ${subject}`)).toEqual([
      "warning connections of the target",
      "warning database shop",
      "blocking role app on the target",
    ]);
    // 9 are needed: 15 - 3 - 10 + our own, which ends, are 3.
    expect(findings[0]?.remedy).toContain("set max_connections = 21;");
    expect(findings[1]?.remedy).toContain(`alter database "shop" connection limit 13;`);
    expect(findings[2]?.remedy).toContain(`alter role "app" connection limit 13;`);
  });

  it("are for fewer jobs, and superusers have no limits of their own", () => {
    const limits = { ...none, roleLimit: 9, databaseLimit: 9 };
    const [finding, ...more] = limitFindings("source", limits, server, config);
    expect(finding).toMatchObject({ severity: "warning", role: "an administrator", side: "source" });
    expect(finding?.remedy).toContain("--jobs 2");
    expect(more).toHaveLength(1);
    expect(limitFindings("source", limits, { ...server, isSuperuser: true }, config)).toEqual([]);
  });

  it.each([
    ["db.example.org", false, 1],
    ["10.0.0.1", false, 1],
    ["db.example.org", true, 0],
    ["127.0.0.1", false, 0],
    ["localhost", false, 0],
    ["/var/run/postgresql", false, 0],
  ])("to %s with encryption %s: %i findings", (host, isEncrypted, findings) => {
    expect(encryptionFindings("source", isEncrypted, host)).toHaveLength(findings);
  });
});

describe("transaction ids", () => {
  const young: Ages = { age: 2e8, mxidAge: 0, oldest: "public.t", owner: "app", seesOthers: true };

  it("run out", () => {
    expect(ageFindings("source", young, "app")).toEqual([]);
    for (const old of [{ age: 1.6e9 }, { mxidAge: 1.7e9 }]) {
      const [finding] = ageFindings("source", { ...young, ...old }, "app");
      expect(finding).toMatchObject({ severity: "warning", role: "app" });
      expect(finding?.remedy).toContain("vacuum (freeze) public.t;");
    }
  });
});

describe("the load", () => {
  const sizes = {
    tableBytes: 300 * gigabyte, indexBytes: 100 * gigabyte, largestIndexBytes: 20 * gigabyte, changes: 5e6, seconds: 1e4,
  }; // prettier-ignore
  const good: Settings = {
    maxWalBytes: 16 * gigabyte, maintenanceBytes: 64 * 1024 ** 2, tempFileBytes: -1, vacuums: true, standbys: "",
    commit: "on", snapshotMinutes: null,
  }; // prettier-ignore
  const copy = { indexJobs: 2, indexMemoryBytes: gigabyte };
  const subjects = (settings: Partial<Settings>): string[] =>
    targetSettings({ ...good, ...settings }, sizes, copy, "app").map(({ subject }) => subject);

  it("needs disk on both sides, in figures", () => {
    const [target, source] = diskFindings(sizes);
    expect(target?.message).toContain("about 400 GB: 300 GB of tables and 100 GB of indexes");
    // 500 per second of 64 bytes; 400 GB at 50 MB per second.
    expect(source?.message).toContain("at 500.0 changed rows per second");
    expect(source?.message).toContain("110 MB per hour");
    expect(source?.message).toContain("lasts 2.3 h");
  });

  it("is made dear by settings", () => {
    expect(subjects({})).toEqual([]);
    expect(subjects({ maxWalBytes: gigabyte })).toEqual(["max_wal_size"]);
    expect(subjects({ maintenanceBytes: 4 * gigabyte })).toEqual(["maintenance_work_mem"]);
    expect(subjects({ tempFileBytes: 10 * gigabyte })).toEqual(["temp_file_limit"]);
    expect(subjects({ vacuums: false })).toEqual(["autovacuum"]);
    expect(subjects({ standbys: "one" })).toEqual(["synchronous_commit"]);
    expect(subjects({ standbys: "one", commit: "local" })).toEqual([]);
    expect(snapshotFindings({ ...good, snapshotMinutes: 5 })).toHaveLength(1);
    expect(snapshotFindings({ ...good, snapshotMinutes: -1 })).toEqual([]);
  });
});
