/** Which database a connection leads to, and as whom, in a form that holds no secret. */
import type { ConnectionSettings } from "./conninfo.ts";

export interface Place {
  /** A name, an address, or the folder of a Unix socket. */
  readonly host: string;
  readonly port: number;
  readonly database: string;
  readonly role: string;
}

export function placeOf({ host, name, port, database, user }: ConnectionSettings): Place {
  // A name that stands beside an address is there for the certificate: the address is where the connection leads to.
  return {
    host: name === undefined || name === host ? host : `${name} (${host})`,
    port,
    database,
    role: user,
  };
}

/** `app@old.example.org/shop`, with the port where it is not 5432. */
export function placeText({ host, port, database, role }: Place): string {
  const isAddress = /^[\da-f:.]*:[\da-f:.%]*$/i.test(host);
  return `${role}@${isAddress ? `[${host}]` : host}${port === 5432 ? "" : `:${port}`}/${database}`;
}

/** Whether two connections lead to the same database, as far as their texts tell. */
export function isSamePlace(one: ConnectionSettings, other: ConnectionSettings): boolean {
  const key = ({ host, port, database }: ConnectionSettings): string =>
    JSON.stringify([loopback.has(host.toLowerCase()) ? "localhost" : host.toLowerCase(), port, database]);
  return key(one) === key(other);
}

const loopback: ReadonlySet<string> = new Set(["localhost", "127.0.0.1", "::1"]);
