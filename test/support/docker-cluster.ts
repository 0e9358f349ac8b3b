import { GenericContainer, getContainerRuntimeClient, Wait } from "testcontainers";

import { createDatabaseAt, serverVersion } from "./admin.ts";
import type { Cluster, ClusterDatabase, ClusterOptions } from "./cluster.ts";
import { commonSettings, postgresUrl } from "./cluster-settings.ts";
import { superuser, superuserPassword } from "./data-directory.ts";
import { freePort } from "./free-port.ts";

const startTimeoutMs = 120_000;
const stopTimeoutSeconds = 20;

/** The same as the embedded kind, from the image `postgres:<version>`. */
export async function startDockerCluster(options: ClusterOptions): Promise<Cluster> {
  if (options.unixSocket === true || (options.tls !== undefined && options.tls !== "off")) {
    throw new Error("Unix sockets and TLS are only to be had from embedded servers");
  }
  const runtime = await getContainerRuntimeClient().catch((error: unknown) => {
    throw new Error("REPLICATE_TEST_PG asks for containers, but no container engine answers", {
      cause: error,
    });
  });
  const settings = { ...commonSettings(options), ...options.settings };
  const port = await freePort();
  const started = await new GenericContainer(`postgres:${options.version}`)
    .withEnvironment({
      POSTGRES_USER: superuser,
      POSTGRES_PASSWORD: superuserPassword,
      POSTGRES_HOST_AUTH_METHOD: options.auth === "trust" ? "trust" : "scram-sha-256",
      POSTGRES_INITDB_ARGS: `--auth=scram-sha-256 --encoding=UTF8 --locale=${options.locale ?? "C"}`,
    })
    // A port that the engine chooses would be another one after a restart.
    .withExposedPorts({ container: 5432, host: port })
    .withCommand([
      "postgres",
      ...Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    ])
    // The image's entry point runs a server for its own set-up first, hence the second message.
    .withWaitStrategy(Wait.forLogMessage(/database system is ready to accept connections/, 2))
    .withStartupTimeout(startTimeoutMs)
    .start();
  const container = runtime.container.getById(started.getId());
  const urlFor = (database: string, user: string = superuser, password?: string): string => {
    const known = password ?? (user === superuser ? superuserPassword : undefined);
    return postgresUrl({ host: started.getHost(), port, database, user, password: known });
  };
  const adminUrl = urlFor("postgres");
  const version = await untilAnswered(adminUrl);
  let up = true;

  async function end(signal: "SIGINT" | "SIGQUIT" | "SIGKILL"): Promise<void> {
    if (!up) return;
    up = false;
    const ended = container.wait();
    await container.kill({ signal });
    await ended;
  }

  async function stop(): Promise<void> {
    await started.stop({ timeout: stopTimeoutSeconds * 1000, remove: true, removeVolumes: true });
  }

  return {
    version,
    major: Number(version.split(".")[0]),
    port,
    pid: undefined,
    dataDir: undefined,
    socketDir: undefined,
    certificate: undefined,
    adminUrl,
    urlFor,
    createDatabase: (prefix = "test"): Promise<ClusterDatabase> => createDatabaseAt(adminUrl, prefix),
    log: async () => (await container.logs({ stdout: true, stderr: true })).toString(),
    restart: async (mode = "fast") => {
      await end(mode === "fast" ? "SIGINT" : "SIGQUIT");
      await container.start();
      up = true;
      await untilAnswered(adminUrl);
    },
    down: (mode) => end(mode === "fast" ? "SIGINT" : "SIGQUIT"),
    kill9: () => end("SIGKILL"),
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** The port is open before the server answers, as the engine listens on it. */
async function untilAnswered(adminUrl: string): Promise<string> {
  const deadline = Date.now() + startTimeoutMs;
  for (;;) {
    try {
      return await serverVersion(adminUrl);
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
