/** channel_binding=require, as libpq means it: the login is tied to the encrypted channel, or there is none. */
import type pg from "pg";
import { ReplicateError } from "../errors.ts";
import type { Side } from "../events.ts";
import type { ConnectionSettings } from "./conninfo.ts";

/** What the driver tells of a login, which it does not show. */
interface Wire {
  prependListener(event: string, listener: (message: { mechanisms?: readonly string[] }) => void): void;
  emit(event: "error", error: Error): void;
  readonly stream: { destroy(): void };
}

/**
 * Cuts the session before a password or anything made of it is sent where the server does not offer SCRAM-SHA-256-PLUS, and
 * before it is used where the server has let us in without: `trust`, a certificate, password, md5.
 */
export function requireChannelBinding(client: pg.Client, side: Side, settings: ConnectionSettings): void {
  const fail = (why: string): ReplicateError =>
    new ReplicateError("LOGIN_REFUSED", `cannot connect to the ${side} ${settings.label}: ${why}`, {
      side,
      hint: "channel_binding=require needs TLS, and scram-sha-256 as the server's method for this user; else leave it out.",
    });
  if (settings.ssl === false) throw fail("channel_binding=require, and the connection is not encrypted");
  const wire = (client as unknown as { connection: Wire }).connection;
  let isBound = false;
  const cut = (why: string): void => {
    // The server may have said already that it is ready: the driver has to hear of it before it reads on.
    wire.emit("error", fail(`channel_binding=require, and ${why}`));
    wire.stream.destroy();
  };
  for (const event of ["authenticationCleartextPassword", "authenticationMD5Password"])
    wire.prependListener(event, () => cut("the server asks for the password itself"));
  wire.prependListener("authenticationSASL", ({ mechanisms = [] }) => {
    isBound = mechanisms.includes("SCRAM-SHA-256-PLUS");
    if (!isBound) cut("the server does not offer it");
  });
  wire.prependListener("authenticationOk", () => {
    if (!isBound) cut("the server lets this user in without it");
  });
}
