import type { Authentication, Tls } from "./data-directory.ts";

// Servers for tests, demonstration and benchmarks. Two kinds can be started: from the binaries in
// node_modules (the default), or as containers when REPLICATE_TEST_PG is `docker` or `docker:<version>`.

export interface ClusterOptions {
  /** The major version, such as "13". */
  version: string;
  /** Entries of postgresql.conf; they win over the ones chosen here. */
  settings?: Record<string, string>;
  /** Off by default: nothing here has to survive a power cut. Benchmarks want it on. */
  fsync?: boolean;
  auth?: Authentication;
  /** Needs the openssl program, see hasOpenssl(). */
  tls?: Tls;
  /** Also listens on a Unix socket in `socketDir`. */
  unixSocket?: boolean;
  /** Of the databases; "C" unless told otherwise. */
  locale?: string;
}

export interface ClusterDatabase {
  name: string;
  /** As the superuser. */
  url: string;
  drop: () => Promise<void>;
}

export interface Cluster {
  /** In full, such as "13.23". */
  readonly version: string;
  readonly major: number;
  readonly port: number;
  /** The postmaster's, undefined while the server is down and where it runs in a container. */
  readonly pid: number | undefined;
  /** Undefined where the server runs in a container. */
  readonly dataDir: string | undefined;
  readonly socketDir: string | undefined;
  /** The self-signed certificate's path if the cluster was started with `tls`. */
  readonly certificate: string | undefined;
  /** The superuser's, of the database `postgres`. */
  readonly adminUrl: string;
  urlFor: (database: string, user?: string, password?: string) => string;
  createDatabase: (prefix?: string) => Promise<ClusterDatabase>;
  /** What the server has written to its log so far. */
  log: () => Promise<string>;
  /** Stops the server if it is up, then starts it at the same port. `immediate` leads to crash recovery. */
  restart: (mode?: "fast" | "immediate") => Promise<void>;
  /** Stops the server and leaves it down until `restart`. */
  down: (mode: "fast" | "immediate") => Promise<void>;
  /** Ends postmaster and backends by SIGKILL and leaves the server down until `restart`. */
  kill9: () => Promise<void>;
  /** Stops the server and removes its data. */
  stop: () => Promise<void>;
  [Symbol.asyncDispose]: () => Promise<void>;
}

export async function startCluster(options: ClusterOptions): Promise<Cluster> {
  const choice = process.env["REPLICATE_TEST_PG"];
  if (choice === undefined || choice === "" || choice === "embedded") {
    const { startEmbeddedCluster } = await import("./embedded-cluster.ts");
    return startEmbeddedCluster(options);
  }
  const [kind, version = options.version] = choice.split(":");
  if (kind !== "docker") {
    throw new Error(`REPLICATE_TEST_PG is "${choice}": expected embedded, docker or docker:<version>`);
  }
  const { startDockerCluster } = await import("./docker-cluster.ts");
  return startDockerCluster({ ...options, version });
}
