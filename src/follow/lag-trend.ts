/** Whether the lag grows: an answer that one look cannot give. */

/** Milliseconds that are looked back, and how many there must be at least. */
const WINDOW_MS = 60_000;
const LEAST_MS = 15_000;
const APART_MS = 1000;

export class LagTrend {
  /** The oldest first. */
  #samples: { readonly at: number; readonly lagSeconds: number }[] = [];

  /** `at`: milliseconds since the epoch. */
  add(at: number, lagSeconds: number): void {
    if (at - (this.#samples.at(-1)?.at ?? -Infinity) < APART_MS) return;
    this.#samples.push({ at, lagSeconds });
    // One sample before the window stays, or batches that take a minute each would never have two.
    while ((this.#samples[1]?.at ?? Infinity) < at - WINDOW_MS) this.#samples.shift();
  }

  /** Seconds by which the lag has grown per second; negative when it shrinks, null as long as nothing can be said. */
  get perSecond(): number | null {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    if (first === undefined || last === undefined || last.at - first.at < LEAST_MS) return null;
    return ((last.lagSeconds - first.lagSeconds) * 1000) / (last.at - first.at);
  }
}
