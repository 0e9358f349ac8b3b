/**
 * COPY from one server into another: the source's frames are passed on as they come in and never become rows.
 *
 * The server sends one CopyData frame per row. Handing those on one by one would cost the receiving server a read loop
 * per row, so the headers between the rows are squeezed out within the buffer that the socket delivered, and the rest
 * leaves as a single frame. Nothing is gathered beyond one such buffer (64 KiB): memory does not grow with
 * the size of a row.
 */
import type { Side } from "../events.ts";
import { ReplicateError } from "../errors.ts";
import type { Connection } from "./connect.ts";
import { toldBy } from "./sqlstate.ts";

export interface RelayOptions {
  /** `copy … to stdout`, run on the source; other statements may come before it. */
  readonly read: string;
  /** `copy … from stdin`, run on the target; other statements may come before and after it. */
  readonly write: string;
  /** Ends the relay: the source session is cut, the target's COPY is failed. */
  readonly signal: AbortSignal;
  /** Called for each buffer passed on, with the bytes of data and the rows that began in it. */
  readonly onProgress?: (bytes: number, rows: number) => void;
}

export interface RelayResult {
  /** Rows as the target counted them. */
  readonly rows: number;
  /** Bytes of data, without the protocol's frames. */
  readonly bytes: number;
}

/** Which side rejected, so that the caller can say what was going on. */
export class RelayError extends Error {
  override readonly name = "RelayError";
  readonly side: Side;

  constructor(side: Side, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.side = side;
  }
}

interface Socket {
  write(data: Uint8Array): boolean;
  pause(): void;
  resume(): void;
  cork(): void;
  uncork(): void;
  on(event: string, listener: (...values: never[]) => void): void;
  once(event: string, listener: (...values: never[]) => void): void;
  removeListener(event: string, listener: (...values: never[]) => void): void;
  listeners(event: string): ((...values: never[]) => void)[];
  readonly writableLength: number;
  readonly destroyed: boolean;
}

interface Wire {
  readonly stream: Socket;
  query(text: string): void;
  sendCopyFail(message: string): void;
}

/** Bytes that may wait in the target's socket before the source is told to pause. */
const maxQueuedBytes = 512 * 1024;

const answerTimeoutMs = 10_000;

const COPY_DATA = 0x64;
const COPY_DONE = 0x63;
const ERROR_RESPONSE = 0x45;
const headerBytes = 5;
const copyDoneFrame = Buffer.from([COPY_DONE, 0, 0, 0, 4]);

/**
 * Runs a COPY on the source and feeds it to a COPY on the target. Both sessions must be idle or in a transaction.
 * Throws RelayError with the driver's error as its cause; the target's error wins, because a target that rejects a row
 * makes the source fail too. After an error the source session is cut and useless; the target session can be used
 * again, its transaction is aborted. Throws ABORTED when the signal fires.
 */
export async function relayCopy(
  source: Connection,
  target: Connection,
  options: RelayOptions,
): Promise<RelayResult> {
  const { signal } = options;
  if (signal.aborted) throw new ReplicateError("ABORTED", "stopped before the copy began");
  const writer = new CopyIn(options.write);
  const reader = new CopyOut(options.read, writer, options.onProgress);
  submit(target, writer);
  submit(source, reader);
  const onAbort = (): void => {
    source.destroy();
    writer.fail("stopped on request");
  };
  signal.addEventListener("abort", onAbort, { once: true });
  // What ends first decides: a rejection by the target must not wait for a source that nobody reads from any more.
  const rejected = writer.done.then(
    () => undefined,
    (error: unknown) => error,
  );
  try {
    const first = await Promise.race([reader.done.then(() => undefined), rejected]);
    if (first !== undefined) throw new RelayError("target", first);
    writer.end();
    return { rows: await writer.done, bytes: reader.bytes };
  } catch (error) {
    source.destroy();
    writer.fail("the source failed");
    const said = await answered(rejected, target);
    if (signal.aborted) throw new ReplicateError("ABORTED", "stopped on request", { cause: error });
    if (error instanceof RelayError) throw error;
    throw writer.rejection === undefined ? new RelayError("source", error) : new RelayError("target", said);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

/** Waits for the target's answer to a failed COPY, and cuts a session that does not give one. */
async function answered(answer: Promise<unknown>, target: Connection): Promise<unknown> {
  const timer = setTimeout(() => target.destroy(), answerTimeoutMs);
  try {
    return await answer;
  } finally {
    clearTimeout(timer);
  }
}

function submit(connection: Connection, query: CopyIn | CopyOut): void {
  query.done.catch((error: unknown) => toldBy(connection.side, error));
  connection.client.query(query as unknown as { submit(connection: never): void });
}

/** COPY FROM STDIN, as the driver's submittable. */
class CopyIn {
  readonly text: string;
  readonly done: Promise<number>;
  /** The target's own complaint, not the answer to our giving up. */
  rejection: unknown;
  #wire: Wire | undefined;
  #isOver = false;
  #hasFailed = false;
  #rows = 0;
  readonly #resolve: (rows: number) => void;
  readonly #reject: (error: unknown) => void;

  constructor(text: string) {
    this.text = text;
    let settle: [(rows: number) => void, (error: unknown) => void] | undefined;
    this.done = new Promise((resolve, reject) => (settle = [resolve, reject]));
    [this.#resolve, this.#reject] = settle as unknown as [(rows: number) => void, (error: unknown) => void];
  }

  /** Null until the driver has sent the statement, and when there is nobody to send to any more. */
  get socket(): Socket | null {
    return this.#wire === undefined || this.#isOver ? null : this.#wire.stream;
  }

  submit(wire: Wire): undefined {
    this.#wire = wire;
    wire.query(this.text);
    return undefined;
  }

  end(): void {
    this.socket?.write(copyDoneFrame);
  }

  fail(message: string): void {
    if (this.#hasFailed || this.#isOver || this.#wire === undefined) return;
    this.#hasFailed = true;
    this.#wire.sendCopyFail(message);
  }

  handleCopyInResponse(): void {
    // The data are on their way: a server that rejects the statement ignores them.
  }

  handleCommandComplete(message: { text: string }): void {
    const [, rows] = /^COPY (\d+)/.exec(message.text) ?? [];
    if (rows !== undefined) this.#rows = Number(rows);
  }

  handleError(error: unknown): void {
    if (!this.#hasFailed) this.rejection = error;
    this.#isOver = true;
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    this.#isOver = true;
    this.#resolve(this.#rows);
  }
}

/** COPY TO STDOUT, as the driver's submittable. While the data flow it reads the socket in the driver's place. */
class CopyOut {
  readonly text: string;
  readonly done: Promise<void>;
  bytes = 0;
  readonly #into: CopyIn;
  readonly #onProgress: ((bytes: number, rows: number) => void) | undefined;
  #stream: Socket | undefined;
  #driverListener: ((chunk: Buffer) => void) | undefined;
  /** Bytes that the frame at hand still lacks. */
  #missing = 0;
  #isData = false;
  /** A header cut in two by the end of a buffer. */
  readonly #partial = Buffer.alloc(headerBytes);
  #partialBytes = 0;
  #isPaused = false;
  readonly #resolve: () => void;
  readonly #reject: (error: unknown) => void;

  constructor(text: string, into: CopyIn, onProgress: ((bytes: number, rows: number) => void) | undefined) {
    this.text = text;
    this.#into = into;
    this.#onProgress = onProgress;
    let settle: [() => void, (error: unknown) => void] | undefined;
    this.done = new Promise((resolve, reject) => (settle = [resolve, reject]));
    [this.#resolve, this.#reject] = settle as unknown as [() => void, (error: unknown) => void];
  }

  submit(wire: Wire): undefined {
    this.#stream = wire.stream;
    this.#driverListener = wire.stream.listeners("data")[0] as (chunk: Buffer) => void;
    wire.stream.removeListener("data", this.#driverListener);
    wire.stream.on("data", this.#onData);
    wire.query(this.text);
    return undefined;
  }

  handleCommandComplete(): void {
    // The target counts the rows.
  }

  handleError(error: unknown): void {
    this.#giveBack();
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    this.#resolve();
  }

  readonly #onData = (chunk: Buffer): void => {
    const { length } = chunk;
    // Where the next payload goes. Room for a header is kept in front where the buffer has it to spare.
    let start = 0;
    let end = 0;
    let at = 0;
    let rows = 0;
    if (this.#partialBytes > 0) {
      const lacking = Math.min(headerBytes - this.#partialBytes, length);
      chunk.copy(this.#partial, this.#partialBytes, 0, lacking);
      this.#partialBytes += lacking;
      at = lacking;
      if (this.#partialBytes < headerBytes) return;
      this.#partialBytes = 0;
      if (this.#isForDriver(this.#partial[0] as number)) {
        this.#giveBack(Buffer.concat([this.#partial, chunk.subarray(at)]));
        return;
      }
      if (this.#beginFrame(this.#partial, 0)) rows += 1;
    }
    start = at;
    end = at;
    while (at < length) {
      if (this.#missing > 0) {
        const take = Math.min(this.#missing, length - at);
        if (this.#isData) {
          if (end === start) {
            start = at;
            end = at + take;
          } else {
            if (end !== at) chunk.copyWithin(end, at, at + take);
            end += take;
          }
        }
        this.#missing -= take;
        at += take;
        continue;
      }
      if (length - at < headerBytes) {
        if (this.#isForDriver(chunk[at] as number)) break;
        this.#partialBytes = chunk.copy(this.#partial, 0, at, length);
        at = length;
        break;
      }
      if (this.#isForDriver(chunk[at] as number)) break;
      if (this.#beginFrame(chunk, at)) rows += 1;
      at += headerBytes;
    }
    if (end > start || rows > 0) this.#pass(chunk, start, end, rows);
    if (at < length) this.#giveBack(chunk.subarray(at));
  };

  /** Everything from CopyDone or an error on is the driver's business. */
  #isForDriver(code: number): boolean {
    return this.#missing === 0 && (code === COPY_DONE || code === ERROR_RESPONSE);
  }

  /** Reads a header. Returns whether a row begins. */
  #beginFrame(buffer: Buffer, at: number): boolean {
    this.#missing = buffer.readUInt32BE(at + 1) - 4;
    this.#isData = buffer[at] === COPY_DATA;
    return this.#isData;
  }

  #pass(chunk: Buffer, start: number, end: number, rows: number): void {
    const bytes = end - start;
    this.bytes += bytes;
    const socket = this.#into.socket;
    if (bytes > 0 && socket !== null && !socket.destroyed) {
      if (start >= headerBytes) {
        writeHeader(chunk, start - headerBytes, bytes);
        socket.write(chunk.subarray(start - headerBytes, end));
      } else {
        const header = Buffer.allocUnsafe(headerBytes);
        writeHeader(header, 0, bytes);
        socket.cork();
        socket.write(header);
        socket.write(chunk.subarray(start, end));
        socket.uncork();
      }
      if (socket.writableLength > maxQueuedBytes) this.#pauseUntilDrained(socket);
    }
    this.#onProgress?.(bytes, rows);
  }

  #pauseUntilDrained(socket: Socket): void {
    if (this.#isPaused) return;
    this.#isPaused = true;
    this.#stream?.pause();
    const resume = (): void => {
      socket.removeListener("drain", resume);
      socket.removeListener("close", resume);
      this.#isPaused = false;
      this.#stream?.resume();
    };
    socket.on("drain", resume);
    socket.on("close", resume);
  }

  /** Lets the driver read the socket again, beginning with what is left of the last buffer. */
  #giveBack(rest?: Buffer): void {
    const stream = this.#stream;
    const listener = this.#driverListener;
    if (stream === undefined || listener === undefined) return;
    this.#driverListener = undefined;
    stream.removeListener("data", this.#onData);
    stream.on("data", listener);
    if (rest !== undefined && rest.length > 0) listener(rest);
  }
}

function writeHeader(buffer: Buffer, at: number, bytes: number): void {
  buffer[at] = COPY_DATA;
  buffer.writeUInt32BE(bytes + 4, at + 1);
}
