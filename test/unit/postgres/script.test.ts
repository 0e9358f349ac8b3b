import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import type { Connection } from "../../../src/postgres/connect.ts";
import { FeedingScript } from "../../../src/postgres/script.ts";

// A script on a socket of our own, which is full or not as the test wants.

interface Query {
  submit: (wire: unknown) => void;
  handleError: (error: Error) => void;
  handleReadyForQuery: () => void;
}

function fakeScript(): { script: FeedingScript; socket: EventEmitter; query: Query } {
  const socket = Object.assign(new EventEmitter(), { write: () => false });
  let query: Query | undefined;
  const client = { query: (given: Query) => (query = given) };
  const script = new FeedingScript({ client } as unknown as Connection, "copy t from stdin");
  const submitted = query as unknown as Query;
  submitted.submit({ stream: socket, query: () => undefined });
  return { script, socket, query: submitted };
}

const counts = (socket: EventEmitter): number[] => ["drain", "close"].map((event) => socket.listenerCount(event)); // prettier-ignore

const ends: [string, (socket: EventEmitter, query: Query) => void][] = [
  ["drain", (socket) => socket.emit("drain")],
  ["close", (socket) => socket.emit("close")],
  ["error", (_, query) => query.handleError(new Error("refused"))],
  ["the end of the script", (_, query) => query.handleReadyForQuery()],
];

test.each(ends)("a full socket keeps no listeners after %s", async (_, end) => {
  const { script, socket, query } = fakeScript();
  script.done.catch(() => undefined);
  for (let times = 0; times < 20; times += 1) {
    const all = Promise.all([script.drained(), script.drained(), script.drained()]);
    expect(Math.max(...counts(socket))).toBeLessThanOrEqual(1);
    end(socket, query);
    await all;
    expect(counts(socket)).toEqual([0, 0]);
    if (_ !== "drain") break;
  }
});
