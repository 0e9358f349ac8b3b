import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "vitest";

import { type Proxy, startProxy } from "../../support/proxy.ts";

let echo: Server;
let proxy: Proxy;
let echoSockets: Socket[];

beforeEach(async () => {
  echoSockets = [];
  echo = createServer((socket) => {
    echoSockets.push(socket);
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });
  echo.listen(0, "127.0.0.1");
  await once(echo, "listening");
  proxy = await startProxy({ targetPort: (echo.address() as AddressInfo).port });
});

afterEach(async () => {
  await proxy.close();
  for (const socket of echoSockets) socket.destroy();
  echo.close();
});

async function open(): Promise<Socket> {
  const socket = connect(proxy.port, "127.0.0.1");
  await once(socket, "connect");
  return socket;
}

async function ask(socket: Socket, text: string): Promise<string> {
  socket.write(text);
  const [answer] = (await once(socket, "data")) as [Buffer];
  return answer.toString();
}

test("passes data both ways and the end after it", async () => {
  const socket = await open();
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  socket.end("all of it");
  await once(socket, "close");
  expect(Buffer.concat(chunks).toString()).toBe("all of it");
  await expect.poll(() => proxy.openConnections).toBe(0);
});

test("delays each way, and counts round trips", async () => {
  proxy.setDelay(40);
  const socket = await open();
  const startedAt = performance.now();
  expect(await ask(socket, "ping")).toBe("ping");
  expect(await ask(socket, "pong")).toBe("pong");
  const elapsedMs = performance.now() - startedAt;
  expect(elapsedMs).toBeGreaterThanOrEqual(159);
  expect(elapsedMs).toBeLessThan(600);
  expect(proxy.takeTraffic()).toEqual({ connections: 1, bytesToTarget: 8, bytesToClient: 8, roundTrips: 2 });
  expect(proxy.traffic().roundTrips).toBe(0);
  socket.destroy();
});

test("keeps the order and the throughput under delay", async () => {
  proxy.setDelay(50);
  const socket = await open();
  const blocks = 400;
  const block = 64 * 1024;
  let received = 0;
  let wrong = 0;
  socket.on("data", (chunk: Buffer) => {
    for (const byte of chunk) if (byte !== (Math.floor(received++ / block) & 0xff)) wrong++;
  });
  const startedAt = performance.now();
  for (let index = 0; index < blocks; index++) {
    if (!socket.write(Buffer.alloc(block, index & 0xff))) await once(socket, "drain");
    // A change of delay in the middle must not let later data overtake.
    if (index === blocks / 2) proxy.setDelay(10);
  }
  await expect.poll(() => received, { timeout: 20_000, interval: 10 }).toBe(blocks * block);
  expect(wrong).toBe(0);
  // 25 MB in pieces of 64 KB would take 40 s if each had to wait for the one before.
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  socket.destroy();
});

test("cuts live connections and welcomes new ones", async () => {
  const socket = await open();
  await ask(socket, "hello");
  proxy.cutAll();
  const [error] = (await once(socket, "error")) as [NodeJS.ErrnoException];
  expect(error.code).toBe("ECONNRESET");
  await expect.poll(() => echoSockets[0]?.destroyed).toBe(true);
  const next = await open();
  expect(await ask(next, "again")).toBe("again");
  next.destroy();
});

test("as a black hole forwards neither data nor ends until it is switched off", async () => {
  const socket = await open();
  await ask(socket, "before");
  proxy.blackhole(true);
  let answer = "";
  socket.on("data", (chunk: Buffer) => (answer += chunk.toString()));
  socket.write("held");
  const leaving = await open();
  leaving.destroy();
  await sleep(100);
  expect(answer).toBe("");
  expect(echoSockets[1]?.readableEnded ?? false).toBe(false);
  proxy.blackhole(false);
  await expect.poll(() => answer).toBe("held");
  await expect.poll(() => proxy.openConnections).toBe(1);
  socket.destroy();
});

test("refuses new connections while live ones go on, then accepts at the same port", async () => {
  const socket = await open();
  await ask(socket, "early");
  const { port } = proxy;
  await proxy.refuse(true);
  await expect(open()).rejects.toThrow("ECONNREFUSED");
  expect(await ask(socket, "still here")).toBe("still here");
  await proxy.refuse(false);
  expect(proxy.port).toBe(port);
  const next = await open();
  expect(await ask(next, "late")).toBe("late");
  next.destroy();
  socket.destroy();
});

test("resets the client when the target is down", async () => {
  echo.close();
  const socket = await open();
  await expect(ask(socket, "anybody?")).rejects.toThrow();
});
