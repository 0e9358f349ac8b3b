import { connect, createServer, type Server, type Socket } from "node:net";

// What may stand where a server is expected: a pool that gives a session's transactions to any of its own sessions, and
// a server that is too old. Both speak just enough of the protocol.

export interface FakeServer extends AsyncDisposable {
  readonly port: number;
}

/**
 * A pool in transaction mode before a server that lets everybody in without a password. With one backend per client it
 * behaves as a pool in session mode.
 */
export async function startPooler(backendPort: number, backends: number): Promise<FakeServer> {
  const sockets = new Set<Socket>();
  const keep = (socket: Socket): Socket => {
    sockets.add(socket);
    return socket.setNoDelay(true).on("error", () => undefined);
  };
  return await listen((client) => {
    keep(client);
    let pool: Socket[] = [];
    let current: Socket | undefined;
    let turn = 0;
    client.on("data", (bytes) => {
      const isSslRequest = bytes.length === 8 && bytes.readInt32BE(4) === 80877103;
      if (isSslRequest) return void client.write("N");
      if (pool.length === 0) {
        pool = Array.from({ length: backends }, () =>
          keep(connect(backendPort, "127.0.0.1")).on("close", () => client.destroy()),
        );
        for (const [index, backend] of pool.entries()) {
          let isGreeted = false;
          readMessages(backend, (type, message) => {
            // The client hears one greeting, and only from the session that serves it at the moment.
            if (isGreeted || index === 0) client.write(message);
            if (type !== "Z") return;
            isGreeted = true;
            if (message.at(5) === "I".charCodeAt(0) && current === backend) current = undefined;
          });
          backend.write(bytes);
        }
        return;
      }
      current ??= pool[turn++ % pool.length];
      current?.write(bytes);
    });
    client.on("close", () => pool.forEach((backend) => backend.destroy()));
  }, sockets);
}

/** Answers every statement with one row: its version as a number, and a pid. */
export async function startOldServer(versionNumber: string): Promise<FakeServer> {
  const sockets = new Set<Socket>();
  return await listen((client) => {
    sockets.add(client.on("error", () => undefined));
    const ready = message("Z", Buffer.from("I"));
    let isGreeted = false;
    client.on("data", (bytes) => {
      if (bytes.length === 8 && bytes.readInt32BE(4) === 80877103) return void client.write("N");
      if (!isGreeted) {
        isGreeted = true;
        return void client.write(Buffer.concat([message("R", int32(0)), ready]));
      }
      const values = [versionNumber, "1"];
      const fields = ["version", "pid"].map((name) =>
        Buffer.concat([
          Buffer.from(`${name}\0`),
          int32(0),
          int16(0),
          int32(25),
          int16(-1),
          int32(-1),
          int16(0),
        ]),
      );
      const columns = values.map((value) => Buffer.concat([int32(value.length), Buffer.from(value)]));
      const result = [
        message("T", int16(2), ...fields),
        message("D", int16(2), ...columns),
        message("C", Buffer.from("SELECT 1\0")),
      ];
      // Queries of several statements have several results.
      const statements = bytes.toString().split(";").length;
      client.write(Buffer.concat([...Array.from({ length: statements }, () => result).flat(), ready]));
    });
  }, sockets);
}

async function listen(accept: (client: Socket) => void, sockets: Set<Socket>): Promise<FakeServer> {
  const server: Server = createServer(accept);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as { port: number }).port,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Calls back with each whole message of a server. */
function readMessages(socket: Socket, onMessage: (type: string, message: Buffer) => void): void {
  let rest = Buffer.alloc(0);
  socket.on("data", (bytes) => {
    rest = Buffer.concat([rest, bytes]);
    while (rest.length >= 5 && rest.length > rest.readInt32BE(1)) {
      const end = 1 + rest.readInt32BE(1);
      onMessage(String.fromCharCode(rest[0] ?? 0), rest.subarray(0, end));
      rest = rest.subarray(end);
    }
  });
}

function message(type: string, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body]);
}

function int32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
}

function int16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
}
