import type { Socket } from "node:net";

/** More than a fast link carries in the longest delay in use; beyond it the sender has to wait. */
const maxWaitingBytes = 32 * 1024 * 1024;

interface Parcel {
  dueAt: number;
  deliver: () => void;
  bytes: number;
}

/**
 * One direction of a proxied connection. Every chunk, and the end or failure after the last one, leaves a
 * fixed time after it came, so a delay costs latency but no throughput.
 */
export class ProxyFlow {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #delayMs: () => number;
  readonly #onData: (bytes: number) => void;
  readonly #waiting: Parcel[] = [];
  #waitingBytes = 0;
  #lastDueAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #isHeld = false;
  #isAbandoned = false;
  #isClogged = false;

  constructor(from: Socket, to: Socket, delayMs: () => number, onData: (bytes: number) => void) {
    this.#from = from;
    this.#to = to;
    this.#delayMs = delayMs;
    this.#onData = onData;
    from.setNoDelay(true);
    from.on("data", (chunk: Buffer) => {
      this.#onData(chunk.length);
      this.#send(chunk.length, () => this.#write(chunk));
    });
    from.on("end", () => this.#send(0, () => to.end()));
    from.on("error", () => this.#send(0, () => to.resetAndDestroy()));
    // After an orderly end this finds the other side ended already.
    from.on("close", () => this.#send(0, () => to.destroySoon()));
    to.on("drain", () => {
      this.#isClogged = false;
      this.#deliverDue();
    });
  }

  hold(on: boolean): void {
    this.#isHeld = on;
    if (!on) this.#deliverDue();
  }

  /** Forgets what is under way. */
  abandon(): void {
    this.#isAbandoned = true;
    this.#waiting.length = 0;
    clearTimeout(this.#timer);
  }

  #send(bytes: number, deliver: () => void): void {
    if (this.#isAbandoned) return;
    // A delay that was lowered must not let later chunks overtake earlier ones.
    this.#lastDueAt = Math.max(this.#lastDueAt, performance.now() + this.#delayMs());
    this.#waiting.push({ dueAt: this.#lastDueAt, deliver, bytes });
    this.#waitingBytes += bytes;
    if (this.#waitingBytes > maxWaitingBytes) this.#from.pause();
    this.#deliverDue();
  }

  #write(chunk: Buffer): void {
    if (!this.#to.destroyed && this.#to.writable && !this.#to.write(chunk)) this.#isClogged = true;
  }

  #deliverDue(): void {
    clearTimeout(this.#timer);
    if (this.#isHeld || this.#isAbandoned) return;
    for (;;) {
      const first = this.#waiting[0];
      if (first === undefined || (this.#isClogged && !this.#to.destroyed)) break;
      const remainingMs = first.dueAt - performance.now();
      if (remainingMs > 0) {
        this.#timer = setTimeout(() => this.#deliverDue(), remainingMs);
        break;
      }
      this.#waiting.shift();
      this.#waitingBytes -= first.bytes;
      first.deliver();
    }
    if (this.#from.isPaused() && this.#waitingBytes <= maxWaitingBytes) this.#from.resume();
  }
}
