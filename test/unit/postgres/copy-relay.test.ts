import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import type { Connection } from "../../../src/postgres/connect.ts";
import { relayCopy } from "../../../src/postgres/copy-relay.ts";
import { seededRandom } from "../../support/random.ts";

// The relay on sockets of our own, so that frames can be cut anywhere.

class FakeSocket extends EventEmitter {
  written: Buffer[] = [];
  paused = 0;
  destroyed = false;
  writableLength = 0;
  write(data: Buffer): boolean {
    // The relay may use its buffer again for nothing else: a copy tells what was sent.
    this.written.push(Buffer.from(data));
    return true;
  }
  pause(): void {
    this.paused++;
  }
  resume(): void {
    this.paused--;
  }
  cork(): void {
    // Nothing is held back here.
  }
  uncork(): void {
    // Nothing was held back.
  }
}

interface Query {
  submit: (wire: unknown) => void;
  handleError: (error: Error) => void;
  handleCommandComplete: (message: { text: string }) => void;
  handleReadyForQuery: () => void;
}

/** A session whose server is the test. */
function fakeSession(): {
  connection: Connection;
  socket: FakeSocket;
  query: () => Query;
  failed: string[];
  rest: Buffer[];
} {
  const socket = new FakeSocket();
  const rest: Buffer[] = [];
  const failed: string[] = [];
  socket.on("data", (chunk: Buffer) => rest.push(Buffer.from(chunk)));
  let query: Query | undefined;
  const wire = {
    stream: socket,
    query: () => undefined,
    sendCopyFail: (message: string) => failed.push(message),
  };
  const client = {
    query: (given: Query) => {
      query = given;
      given.submit(wire);
    },
  };
  const connection = { client, destroy: () => (socket.destroyed = true) } as unknown as Connection;
  return { connection, socket, query: () => query as Query, failed, rest };
}

function frame(code: string, payload: Buffer): Buffer {
  const header = Buffer.alloc(5);
  header.write(code, 0, "latin1");
  header.writeUInt32BE(payload.length + 4, 1);
  return Buffer.concat([header, payload]);
}

/** Payloads of the CopyData frames that were sent. */
function payloads(written: readonly Buffer[]): { data: Buffer; frames: number; isDone: boolean } {
  const all = Buffer.concat(written);
  const parts: Buffer[] = [];
  let isDone = false;
  let at = 0;
  while (at < all.length) {
    const code = String.fromCharCode(all[at] as number);
    const end = at + 1 + all.readUInt32BE(at + 1);
    if (code === "d") parts.push(all.subarray(at + 5, end));
    else if (code === "c") isDone = true;
    else throw new Error(`frame ${code}`);
    at = end;
  }
  return { data: Buffer.concat(parts), frames: parts.length, isDone };
}

const options = {
  read: "copy a to stdout",
  write: "copy b from stdin",
  signal: new AbortController().signal,
};

test("whatever the cuts, the target gets the data in order, without the frames between the rows", async () => {
  const random = seededRandom("relay");
  for (let round = 0; round < 300; round++) {
    const source = fakeSession();
    const target = fakeSession();
    const rows = Array.from({ length: random.int(0, 30) }, () =>
      Buffer.from(random.text(random.bool(0.1) ? random.int(0, 5000) : random.int(0, 60))),
    );
    const tail = Buffer.concat([
      frame("c", Buffer.alloc(0)),
      frame("C", Buffer.from("COPY 1\0")),
      frame("Z", Buffer.from("T")),
    ]);
    const stream = Buffer.concat([
      frame("H", Buffer.from([0, 0, 0])),
      ...rows.flatMap((row) => [
        ...(random.bool(0.05) ? [frame("N", Buffer.from("dnotice")), frame("S", Buffer.from("c\0c\0"))] : []),
        frame("d", row),
      ]),
      tail,
    ]);
    let counted = 0;
    const relayed = relayCopy(source.connection, target.connection, {
      ...options,
      onProgress: (_, started) => (counted += started),
    });
    for (let at = 0; at < stream.length;) {
      const size = random.pick([1, 2, 4, 5, 6, 64, 1000, 100_000]);
      source.socket.emit("data", Buffer.from(stream.subarray(at, at + size)));
      at += size;
    }
    expect(Buffer.concat(source.rest).equals(tail)).toBe(true);
    source.query().handleReadyForQuery();
    await new Promise(setImmediate);
    const sent = payloads(target.socket.written);
    expect(sent.data.equals(Buffer.concat(rows))).toBe(true);
    expect(sent.isDone).toBe(true);
    target.query().handleCommandComplete({ text: `COPY ${rows.length}` });
    target.query().handleReadyForQuery();
    const bytes = rows.reduce((sum, row) => sum + row.length, 0);
    expect(await relayed).toEqual({ rows: rows.length, bytes });
    expect(counted).toBe(rows.length);
  }
});

test("the rows of one buffer leave as one frame", async () => {
  const source = fakeSession();
  const target = fakeSession();
  const relayed = relayCopy(source.connection, target.connection, options);
  const rows = Array.from({ length: 500 }, (_, index) => frame("d", Buffer.from(`row ${index}\n`)));
  source.socket.emit("data", Buffer.concat([frame("H", Buffer.from([0, 0, 0])), ...rows]));
  expect(payloads(target.socket.written).frames).toBe(1);
  source.socket.emit("data", frame("c", Buffer.alloc(0)));
  source.query().handleReadyForQuery();
  target.query().handleReadyForQuery();
  await relayed;
});

test("the source waits while the target's socket is full", async () => {
  const source = fakeSession();
  const target = fakeSession();
  const relayed = relayCopy(source.connection, target.connection, options);
  target.socket.writableLength = 10_000_000;
  source.socket.emit("data", frame("d", Buffer.from("row")));
  source.socket.emit("data", frame("d", Buffer.from("row")));
  expect(source.socket.paused).toBe(1);
  target.socket.emit("drain");
  expect(source.socket.paused).toBe(0);
  source.socket.emit("data", frame("c", Buffer.alloc(0)));
  source.query().handleReadyForQuery();
  target.query().handleReadyForQuery();
  await relayed;
});

test("what the target says counts, and the source is cut", async () => {
  const source = fakeSession();
  const target = fakeSession();
  const relayed = relayCopy(source.connection, target.connection, options);
  target.query().handleError(new Error("refused"));
  await expect(relayed).rejects.toMatchObject({ name: "RelayError", side: "target", message: "refused" });
  expect(source.socket.destroyed).toBe(true);
  expect(target.failed).toEqual([]);
});

test("when the source fails, the target's COPY is failed and the source's error is told", async () => {
  const source = fakeSession();
  const target = fakeSession();
  const relayed = relayCopy(source.connection, target.connection, options);
  source.socket.emit("data", frame("d", Buffer.from("row")));
  source.socket.emit("data", frame("E", Buffer.from("error")));
  expect(Buffer.concat(source.rest).equals(frame("E", Buffer.from("error")))).toBe(true);
  source.query().handleError(new Error("unreadable"));
  await new Promise(setImmediate);
  expect(target.failed).toEqual(["the source failed"]);
  target.query().handleError(new Error("COPY from stdin failed"));
  await expect(relayed).rejects.toMatchObject({ side: "source", message: "unreadable" });
  expect(payloads(target.socket.written).isDone).toBe(false);
});

test("an abort cuts the source and fails the target's COPY", async () => {
  const source = fakeSession();
  const target = fakeSession();
  const stop = new AbortController();
  const relayed = relayCopy(source.connection, target.connection, { ...options, signal: stop.signal });
  stop.abort();
  expect(source.socket.destroyed).toBe(true);
  source.query().handleError(new Error("Connection terminated"));
  target.query().handleError(new Error("COPY from stdin failed"));
  await expect(relayed).rejects.toMatchObject({ code: "ABORTED" });
  expect(target.failed).toEqual(["stopped on request"]);
});
