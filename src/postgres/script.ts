/**
 * Scripts: several statements in one round trip, with COPY in the middle.
 *
 * The driver sends one statement and waits. A batch over a 100 ms link cannot afford that, so a script goes out as one
 * simple query, and the data of its COPY FROM STDIN statements follow at once, without waiting for the server to ask.
 * If a statement before the COPY fails, the server ignores the data (protocol: CopyData outside of COPY mode is
 * discarded), and the script fails as a whole.
 */
import type { Connection } from "./connect.ts";
import { toldBy } from "./sqlstate.ts";

/** What one statement of a script answered. Values are text, as the server sent them. */
export interface StatementResult {
  /** Command tag: `SELECT 3`, `COPY 120`, `INSERT 0 5`. */
  readonly tag: string;
  /** Rows by column name. */
  readonly rows: readonly Readonly<Record<string, string | null>>[];
}

/** The number at the end of a command tag; 0 where there is none. */
export function tagCount(result: StatementResult | undefined): number {
  return Number(result?.tag.match(/(\d+)$/)?.[1] ?? 0);
}

export interface ScriptHooks {
  /** Called when a statement is complete, before the data of later ones arrive. */
  readonly onStatement?: (result: StatementResult, index: number) => void;
  /**
   * A piece of the data of the n-th COPY TO STDOUT of the script, counting from 0. Pieces do not end where rows do; a row
   * of any size comes as the socket delivers it. The memory is reused after the call.
   */
  readonly onCopyData?: (copy: number, payload: Buffer) => void;
}

interface WireSocket {
  on(event: "data", listener: (chunk: Buffer) => void): void;
  on(event: "drain" | "close", listener: () => void): void;
  removeListener(event: "data", listener: (chunk: Buffer) => void): void;
  removeListener(event: "drain" | "close", listener: () => void): void;
  listeners(event: "data"): unknown[];
  write(data: Buffer): boolean;
  pause(): void;
  resume(): void;
}

interface WireConnection {
  readonly stream: WireSocket;
  query(text: string): void;
}

/** A driver "submittable": the driver calls these as the server's messages come in. */
class ScriptQuery {
  readonly text: string;
  readonly hooks: ScriptHooks;
  readonly done: Promise<StatementResult[]>;
  /** Set when the server has reported an error; the script's remaining statements were not run. */
  failed = false;
  readonly #onSubmit: (wire: WireConnection) => void;
  #resolve!: (results: StatementResult[]) => void;
  #reject!: (error: unknown) => void;
  #results: StatementResult[] = [];
  #fields: string[] = [];
  #rows: Record<string, string | null>[] = [];
  #copies = 0;
  #tap: CopyTap | undefined;

  constructor(text: string, hooks: ScriptHooks, onSubmit: (wire: WireConnection) => void) {
    this.text = text;
    this.hooks = hooks;
    this.#onSubmit = onSubmit;
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  submit(wire: WireConnection): undefined {
    if (this.hooks.onCopyData !== undefined)
      this.#tap = new CopyTap(wire.stream, (piece) => this.#onPiece(piece));
    wire.query(this.text);
    this.#onSubmit(wire);
    return undefined;
  }

  #onPiece(piece: Buffer): void {
    this.hooks.onCopyData?.(this.#copies, piece);
  }

  handleRowDescription(message: { fields: { name: string }[] }): void {
    this.#fields = message.fields.map((field) => field.name);
    this.#rows = [];
  }

  handleDataRow(message: { fields: (string | null)[] }): void {
    this.#rows.push(
      Object.fromEntries(this.#fields.map((name, index) => [name, message.fields[index] ?? null])),
    );
  }

  handleCommandComplete(message: { text: string }): void {
    const result = { tag: message.text, rows: this.#rows };
    this.#rows = [];
    if (message.text.startsWith("COPY ")) this.#copies += 1;
    this.#results.push(result);
    this.hooks.onStatement?.(result, this.#results.length - 1);
  }

  handleCopyInResponse(): void {
    // The data are on their way already.
  }

  handleCopyData(): void {
    // Nobody wanted the data.
  }

  handleEmptyQuery(): void {
    // An empty statement has no result.
  }

  handlePortalSuspended(): void {
    // Simple queries have no portals.
  }

  handleError(error: unknown): void {
    this.failed = true;
    this.#tap?.end();
    this.#reject(error);
  }

  handleReadyForQuery(): void {
    this.#tap?.end();
    this.#resolve(this.#results);
  }
}

const HEADER_BYTES = 5;
const COPY_DATA = 0x64;

/**
 * Reads a socket before the driver does: takes the payloads of CopyData messages out, and hands everything else on. The
 * driver would gather each message as a whole, whatever its size, and make an object of it.
 */
class CopyTap {
  readonly #stream: WireSocket;
  readonly #onPiece: (piece: Buffer) => void;
  readonly #driver: (chunk: Buffer) => void;
  /** Header of the message at hand, as far as it has arrived. */
  readonly #header = Buffer.alloc(HEADER_BYTES);
  #headerBytes = 0;
  /** Bytes of the message at hand that have not arrived. */
  #missing = 0;
  #isData = false;

  constructor(stream: WireSocket, onPiece: (piece: Buffer) => void) {
    this.#stream = stream;
    this.#onPiece = onPiece;
    this.#driver = stream.listeners("data")[0] as (chunk: Buffer) => void;
    stream.on("data", this.#onData);
    stream.removeListener("data", this.#driver);
  }

  end(): void {
    if (!this.#stream.listeners("data").includes(this.#onData)) return;
    this.#stream.on("data", this.#driver);
    this.#stream.removeListener("data", this.#onData);
  }

  readonly #onData = (chunk: Buffer): void => {
    let at = 0;
    while (at < chunk.length) {
      if (this.#missing === 0) {
        const taken = chunk.copy(this.#header, this.#headerBytes, at, at + HEADER_BYTES - this.#headerBytes);
        this.#headerBytes += taken;
        at += taken;
        if (this.#headerBytes < HEADER_BYTES) return;
        this.#headerBytes = 0;
        this.#missing = this.#header.readUInt32BE(1) - 4;
        this.#isData = this.#header[0] === COPY_DATA;
        // The driver keeps what it is given, so it gets a header of its own.
        if (!this.#isData) this.#driver(Buffer.from(this.#header));
        continue;
      }
      const end = Math.min(chunk.length, at + this.#missing);
      const piece = chunk.subarray(at, end);
      this.#missing -= piece.length;
      at = end;
      if (this.#isData) this.#onPiece(piece);
      else this.#driver(piece);
    }
  };
}

function submit(connection: Connection, query: ScriptQuery): void {
  query.done.catch((error: unknown) => toldBy(connection.side, error));
  connection.client.query(query as unknown as { submit(connection: never): void });
}

/** Runs a script without COPY FROM STDIN. Throws the driver's error of the first statement that fails. */
export async function runScript(
  connection: Connection,
  text: string,
  hooks: ScriptHooks = {},
): Promise<StatementResult[]> {
  const query = new ScriptQuery(text, hooks, () => undefined);
  submit(connection, query);
  return await query.done;
}

/** Stops and restarts the flow from the server, for back-pressure. */
export function setFlow(connection: Connection, isFlowing: boolean): void {
  const { stream } = (connection.client as unknown as { connection: WireConnection }).connection;
  if (isFlowing) stream.resume();
  else stream.pause();
}

const FRAME_BYTES = 64 * 1024;
const COPY_FAIL = 0x66;
const COPY_DONE = Buffer.from([0x63, 0, 0, 0, 4]);

/**
 * Gathers COPY payloads into CopyData frames of 64 KiB, because the server handles frames one by one. Payloads are
 * copied: the driver's parser uses their memory again.
 */
export class CopyFrames {
  readonly #sink: (frame: Buffer) => boolean;
  #block = Buffer.allocUnsafe(HEADER_BYTES + FRAME_BYTES);
  #length = HEADER_BYTES;

  /** `sink` takes complete frames and tells whether it wants more now. */
  constructor(sink: (frame: Buffer) => boolean) {
    this.#sink = sink;
  }

  /** False when the sink is full. */
  add(payload: Buffer): boolean {
    if (this.#length + payload.length <= this.#block.length) {
      this.#length += payload.copy(this.#block, this.#length);
      return true;
    }
    const isFlowing = this.#flush();
    if (payload.length <= FRAME_BYTES) {
      this.#length += payload.copy(this.#block, this.#length);
      return isFlowing;
    }
    const frame = Buffer.allocUnsafe(HEADER_BYTES + payload.length);
    payload.copy(frame, HEADER_BYTES);
    return this.#emit(frame);
  }

  /** Completes a COPY. */
  end(): void {
    this.#flush();
    this.#sink(COPY_DONE);
  }

  #flush(): boolean {
    if (this.#length === HEADER_BYTES) return true;
    const frame = this.#block.subarray(0, this.#length);
    this.#block = Buffer.allocUnsafe(HEADER_BYTES + FRAME_BYTES);
    this.#length = HEADER_BYTES;
    return this.#emit(frame);
  }

  #emit(frame: Buffer): boolean {
    frame[0] = COPY_DATA;
    frame.writeUInt32BE(frame.length - 1, 1);
    return this.#sink(frame);
  }
}

/**
 * A script whose COPY FROM STDIN statements are fed while it runs: frames of `CopyFrames`, in the order of the
 * statements.
 */
export class FeedingScript {
  readonly done: Promise<StatementResult[]>;
  readonly #query: ScriptQuery;
  #wire: WireConnection | undefined;
  #queued: Buffer[] = [];
  #draining: Promise<void> | undefined;
  #onDrained: () => void = () => undefined;

  constructor(connection: Connection, text: string) {
    this.#query = new ScriptQuery(text, {}, (wire) => {
      this.#wire = wire;
      for (const frame of this.#queued.splice(0)) wire.stream.write(frame);
    });
    this.done = this.#query.done;
    const end = (): void => this.#onDrained();
    this.done.then(end, end);
    submit(connection, this.#query);
  }

  /** Returns false when the socket is full: wait for `drained` before sending more. */
  send(frame: Buffer): boolean {
    if (this.#query.failed) return true;
    if (this.#wire === undefined) {
      this.#queued.push(frame);
      return true;
    }
    return this.#wire.stream.write(frame);
  }

  /** Has the COPY that is being fed fail on the server, and with it the script. */
  fail(message: string): void {
    if (this.#query.failed || this.#wire === undefined) return;
    const text = Buffer.from(`${message}\0`);
    const frame = Buffer.alloc(HEADER_BYTES + text.length);
    frame[0] = COPY_FAIL;
    frame.writeUInt32BE(4 + text.length, 1);
    text.copy(frame, HEADER_BYTES);
    this.#wire.stream.write(frame);
  }

  /** Resolves when the socket takes more data, or when the script is over. Whoever waits meanwhile waits for the same. */
  drained(): Promise<void> {
    const wire = this.#wire;
    if (wire === undefined || this.#query.failed) return Promise.resolve();
    this.#draining ??= new Promise<void>((resolve) => {
      this.#onDrained = () => {
        wire.stream.removeListener("drain", this.#onDrained);
        wire.stream.removeListener("close", this.#onDrained);
        this.#onDrained = () => undefined;
        this.#draining = undefined;
        resolve();
      };
      wire.stream.on("drain", this.#onDrained);
      wire.stream.on("close", this.#onDrained);
    });
    return this.#draining;
  }
}
