import type { ClusterOptions } from "./cluster.ts";

/** The settings that every test server has, whatever it runs in. */
export function commonSettings(options: ClusterOptions): Record<string, string> {
  const durable = options.fsync === true ? "on" : "off";
  return {
    fsync: durable,
    full_page_writes: durable,
    max_connections: "200",
    max_prepared_transactions: "20",
    shared_buffers: options.fsync === true ? "256MB" : "64MB",
    max_wal_size: "1GB",
    timezone: "UTC",
    log_timezone: "UTC",
    log_line_prefix: "%m [%p] %q%u@%d ",
    ...(options.auth === "trust" ? {} : { password_encryption: "scram-sha-256" }),
  };
}

export function postgresUrl(parts: {
  port: number;
  database: string;
  user: string;
  password: string | undefined;
  host?: string;
}): string {
  const password = parts.password === undefined ? "" : `:${encodeURIComponent(parts.password)}`;
  const authority = `${encodeURIComponent(parts.user)}${password}@${parts.host ?? "127.0.0.1"}:${parts.port}`;
  return `postgresql://${authority}/${encodeURIComponent(parts.database)}`;
}
