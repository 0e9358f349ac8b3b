/**
 * Keeps the target's sequences ahead of the source's while a sync is followed, so that nobody who has to take the target
 * over without a cutover gives out a number twice. They are ahead by a margin, so that little has to be written.
 */
import type { Connection } from "../postgres/connect.ts";
import { asReplicateError } from "../postgres/sqlstate.ts";
import type { SyncContext } from "../state/context.ts";
import { pairSequences, type SequencePair } from "./pairs.ts";
import { advance, readValues, setValues, type Value } from "./values.ts";

/** Values that stay free after the source's; more where a sequence moves faster than that between two looks. */
const MARGIN = 1000n;
/** The margin, as a multiple of what a sequence has moved since the last look. */
const HEADROOM = 4n;
/** Milliseconds after which the sequences are listed anew. */
const LIST_MS = 60_000;

export class SequenceKeeper {
  readonly #context: SyncContext;
  #pairs: readonly SequencePair[] = [];
  #listedAt = -Infinity;
  /** What the source had at the last look, and up to where the target was ahead then. */
  #seen: readonly Value[] = [];
  #ahead: Value[] = [];
  #complaint: string | undefined;

  constructor(context: SyncContext) {
    this.#context = context;
  }

  /**
   * Looks at the source, and sets the sequences on the target whose margin is half used up. A sequence that cannot be
   * read or set is told once as a warning. Throws when a session is broken.
   */
  async refresh(source: Connection, target: Connection): Promise<void> {
    try {
      await this.#refresh(source, target);
      this.#complaint = undefined;
    } catch (error) {
      if (source.isBroken || target.isBroken) throw error;
      this.#listedAt = -Infinity;
      const { message } = asReplicateError(error, "keeping sequences ahead");
      if (message !== this.#complaint)
        this.#context.emit({ type: "warning", message: `sequences are not carried: ${message}` });
      this.#complaint = message;
    }
  }

  async #refresh(source: Connection, target: Connection): Promise<void> {
    if (Date.now() - this.#listedAt > LIST_MS) {
      const { pairs } = await pairSequences(this.#context, source, target);
      this.#pairs = pairs.filter(({ isInterleaved }) => !isInterleaved);
      this.#seen = [];
      this.#ahead = await readValues(target, this.#pairs.map(({ to }) => to)); // prettier-ignore
      this.#listedAt = Date.now();
    }
    const given = await readValues(source, this.#pairs.map(({ from }) => from)); // prettier-ignore
    const advanced = this.#pairs.flatMap(({ from, to }, index) => {
      const now = given[index] as Value;
      const before = this.#seen[index];
      if (before !== undefined && before.value === now.value && before.isCalled === now.isCalled) return [];
      const increment = BigInt(from.increment);
      const moved = before === undefined ? 0n : (now.value - before.value) / increment;
      const margin = moved * HEADROOM > MARGIN ? moved * HEADROOM : MARGIN;
      const present = this.#ahead[index] as Value;
      // Half of the margin has to be left for what comes until the next look.
      if (advance(to, present, now, increment, margin / 2n) === present) return [];
      const wanted = advance(to, present, now, increment, margin);
      this.#ahead[index] = wanted;
      return [{ sequence: to, value: wanted }];
    });
    await setValues(target, advanced);
    this.#seen = given;
  }
}
