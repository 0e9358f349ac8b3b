/** Cancels a statement from outside of its session, as Ctrl-C in psql does. */
import { connect } from "node:net";
import type { Connection } from "./connect.ts";
import type { ConnectionSettings } from "./conninfo.ts";

const CANCEL_REQUEST = 80_877_102;
const patienceMs = 2000;

/**
 * Asks the server to cancel what a session is doing, over a connection of its own: for sessions that we have cut, whose
 * server would otherwise go on to the end of the statement. The server does not answer; it may be too late or have no
 * effect. Resolves when the request is delivered, or cannot be; never throws.
 */
export async function cancelStatement(connection: Connection, settings: ConnectionSettings): Promise<void> {
  const { processID, secretKey } = connection.client as unknown as {
    processID: number | null;
    secretKey: number | null;
  };
  if (processID === null || secretKey === null) return;
  const request = Buffer.alloc(16);
  request.writeInt32BE(16, 0);
  request.writeInt32BE(CANCEL_REQUEST, 4);
  request.writeInt32BE(processID, 8);
  request.writeInt32BE(secretKey, 12);
  await new Promise<void>((resolve) => {
    // Sent without encryption even where sessions are encrypted: servers take it, and the key is worth nothing
    // once the session is over.
    const socket = settings.host.startsWith("/")
      ? connect(`${settings.host}/.s.PGSQL.${settings.port}`)
      : connect(settings.port, settings.host);
    socket.setTimeout(patienceMs, () => socket.destroy());
    socket.on("error", () => undefined);
    socket.on("close", () => resolve());
    socket.on("connect", () => socket.end(request));
    // The server closes the connection when it has passed the request on.
    socket.resume();
  });
}
