/**
 * Notices dead networks. A statement may take hours, so silence alone means nothing; but when a session that waits for an
 * answer hears nothing, and nobody answers on its port either, the session is cut, and whoever uses it reconnects.
 * TCP itself would take a quarter of an hour.
 */
import { connect as openSocket } from "node:net";
import type { ConnectionSettings } from "./conninfo.ts";

/** What is watched of a session. */
export interface Watched {
  readonly settings: ConnectionSettings;
  /** Bytes that the session has received so far. */
  readonly bytesRead: () => number;
  /** A statement is waiting for its answer. */
  readonly isWaiting: () => boolean;
  readonly cut: () => void;
}

const CHECK_MS = 5_000;
/** A session is cut when its port has been silent for so long. */
const DEAD_MS = 20_000;

interface Watch extends Watched {
  lastBytes: number;
  /** When the session, or its port, was last heard. */
  heardAt: number;
  isProbing: boolean;
}

const watches = new Set<Watch>();
let timer: NodeJS.Timeout | undefined;

/** Watches a session until the returned function is called. */
export function watchLiveness(watched: Watched): () => void {
  const watch: Watch = { ...watched, lastBytes: watched.bytesRead(), heardAt: Date.now(), isProbing: false };
  watches.add(watch);
  timer ??= setInterval(check, CHECK_MS).unref();
  return () => {
    watches.delete(watch);
    if (watches.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  };
}

function check(): void {
  const now = Date.now();
  for (const watch of watches) {
    const bytes = watch.bytesRead();
    if (bytes !== watch.lastBytes || !watch.isWaiting()) {
      watch.lastBytes = bytes;
      watch.heardAt = now;
    } else if (now - watch.heardAt > DEAD_MS) {
      watches.delete(watch);
      watch.cut();
    } else if (!watch.isProbing && now - watch.heardAt >= CHECK_MS) {
      watch.isProbing = true;
      void probe(watch.settings).then((isAnswered) => {
        watch.isProbing = false;
        if (isAnswered) watch.heardAt = Date.now();
      });
    }
  }
}

/** Asks the port whether it speaks TLS: one packet, one byte back, no log-in. */
async function probe({ host, port }: ConnectionSettings): Promise<boolean> {
  const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
  return await new Promise((resolve) => {
    const socket = host.startsWith("/") ? openSocket(`${host}/.s.PGSQL.${port}`) : openSocket({ host, port });
    const end = (isAnswered: boolean) => (): void => {
      resolve(isAnswered);
      socket.destroy();
    };
    socket.setTimeout(CHECK_MS, end(false));
    socket.once("connect", () => socket.write(SSL_REQUEST));
    socket.once("data", end(true));
    socket.once("error", end(false));
    socket.once("close", end(false));
  });
}
