import { connect as connectTo, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

import { freePort } from "./free-port.ts";
import { ProxyFlow } from "./proxy-flow.ts";

// A stand-in for the network between two providers: slow, cut, silent or refusing.

export interface ProxyOptions {
  targetHost?: string;
  targetPort: number;
  /** One way; a round trip takes twice this. */
  delayMs?: number;
}

export interface ProxyTraffic {
  /** Connections accepted so far. */
  connections: number;
  bytesToTarget: number;
  bytesToClient: number;
  /** How often a client spoke after the target had: the round trips that it waited for. */
  roundTrips: number;
}

export interface Proxy {
  readonly port: number;
  readonly openConnections: number;
  /** Data under way keep the delay they were sent with. */
  setDelay: (delayMs: number) => void;
  /** Resets the live connections on both sides; new ones are welcome. */
  cutAll: () => void;
  /**
   * Keeps connections open but lets nothing through, not even their end; what was sent meanwhile
   * goes on its way when it is switched off.
   */
  blackhole: (on: boolean) => void;
  /** Sends new connections to another port, as a name does that is moved to another server; the live ones stay. */
  retarget: (port: number) => void;
  /** Refuses new connections; the live ones stay. */
  refuse: (on: boolean) => Promise<void>;
  traffic: () => ProxyTraffic;
  /** Since the call before this one, or the start. */
  takeTraffic: () => ProxyTraffic;
  close: () => Promise<void>;
  [Symbol.asyncDispose]: () => Promise<void>;
}

interface Connection {
  sockets: [Socket, Socket];
  flows: [ProxyFlow, ProxyFlow];
}

export async function startProxy(options: ProxyOptions): Promise<Proxy> {
  const targetHost = options.targetHost ?? "127.0.0.1";
  const live = new Set<Connection>();
  let { targetPort } = options;
  let delayMs = options.delayMs ?? 0;
  let isSilent = false;
  let total: ProxyTraffic = { connections: 0, bytesToTarget: 0, bytesToClient: 0, roundTrips: 0 };
  let port = 0;
  let server: Server | undefined;

  function accept(client: Socket): void {
    const target = connectTo({ host: targetHost, port: targetPort, allowHalfOpen: true });
    total.connections++;
    // So that the client's first words count as a turn.
    let targetSpokeLast = true;
    const toTarget = new ProxyFlow(
      client,
      target,
      () => delayMs,
      (bytes) => {
        total.bytesToTarget += bytes;
        if (targetSpokeLast) total.roundTrips++;
        targetSpokeLast = false;
      },
    );
    const toClient = new ProxyFlow(
      target,
      client,
      () => delayMs,
      (bytes) => {
        total.bytesToClient += bytes;
        targetSpokeLast = true;
      },
    );
    const connection: Connection = { sockets: [client, target], flows: [toTarget, toClient] };
    live.add(connection);
    for (const flow of connection.flows) flow.hold(isSilent);
    const forget = (): void => {
      if (client.destroyed && target.destroyed) live.delete(connection);
    };
    client.on("close", forget);
    target.on("close", forget);
  }

  async function open(nextPort: () => Promise<number>): Promise<void> {
    const next = createServer({ allowHalfOpen: true }, accept);
    for (let attempt = 1; ; attempt++) {
      port = await nextPort();
      try {
        await listen(next, port);
        break;
      } catch (error) {
        // Another process took the port in the meantime.
        if (attempt === 20) throw error;
        await sleep(50);
      }
    }
    server = next;
  }

  async function shut(): Promise<void> {
    const closing = server;
    server = undefined;
    // The callback waits for live connections, which a refusal leaves alone; listening ends at once.
    closing?.close();
    await new Promise((resolve) => setImmediate(resolve));
  }

  function cutAll(): void {
    for (const { sockets, flows } of live) {
      for (const flow of flows) flow.abandon();
      for (const socket of sockets) socket.resetAndDestroy();
    }
    live.clear();
  }

  async function close(): Promise<void> {
    cutAll();
    await shut();
  }

  await open(freePort);
  return {
    get port() {
      return port;
    },
    get openConnections() {
      return live.size;
    },
    setDelay: (ms) => {
      delayMs = ms;
    },
    cutAll,
    blackhole: (on) => {
      isSilent = on;
      for (const { flows } of live) for (const flow of flows) flow.hold(on);
    },
    retarget: (other) => {
      targetPort = other;
    },
    refuse: async (on) => {
      if (on) await shut();
      else if (server === undefined) await open(() => Promise.resolve(port));
    },
    traffic: () => ({ ...total }),
    takeTraffic: () => {
      const taken = total;
      total = { connections: 0, bytesToTarget: 0, bytesToClient: 0, roundTrips: 0 };
      return taken;
    },
    close,
    [Symbol.asyncDispose]: close,
  };
}

function listen(server: Server, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => {
      server.off("error", reject);
      resolve();
    });
  });
}
