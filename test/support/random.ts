/** Numbers that look random and come again for the same seed. */
export interface Random {
  readonly seed: number;
  /** From 0 up to, but not including, 1. */
  next: () => number;
  /** A whole number, both ends included. */
  int: (min: number, max: number) => number;
  bool: (probability?: number) => boolean;
  pick: <Item>(items: readonly Item[]) => Item;
  /** A new array. */
  shuffle: <Item>(items: readonly Item[]) => Item[];
  text: (length: number, alphabet?: string) => string;
  /** A generator of its own for one of several parallel writers, whose turns would mix up a shared one. */
  fork: (label: string) => Random;
}

/**
 * Prints the seed, so that a failure can be run again with REPLICATE_TEST_SEED.
 *
 * @example const random = seededRandom("writers"); // prints: seed writers=123456
 */
export function seededRandom(label: string): Random {
  const given = process.env["REPLICATE_TEST_SEED"];
  const seed = given === undefined || given === "" ? Math.floor(Math.random() * 2 ** 32) : Number(given);
  if (!Number.isSafeInteger(seed)) throw new Error(`REPLICATE_TEST_SEED is no whole number: ${given}`);
  process.stderr.write(`seed ${label}=${seed}\n`);
  return createRandom(seed);
}

export function createRandom(seed: number): Random {
  let state = seed >>> 0;

  // Mulberry32: one addition per step, then mixed by multiplications, all in 32 bits.
  function next(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }

  function int(min: number, max: number): number {
    return min + Math.floor(next() * (max - min + 1));
  }

  function pick<Item>(items: readonly Item[]): Item {
    if (items.length === 0) throw new Error("nothing to pick from");
    return items[int(0, items.length - 1)] as Item;
  }

  function shuffle<Item>(items: readonly Item[]): Item[] {
    const rest = [...items];
    return Array.from(items, () => rest.splice(int(0, rest.length - 1), 1)[0] as Item);
  }

  function text(length: number, alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"): string {
    const letters = Array.from(alphabet);
    return Array.from({ length }, () => pick(letters)).join("");
  }

  function fork(label: string): Random {
    let hash = int(0, 2 ** 32 - 1);
    for (const character of label) hash = Math.imul(hash ^ (character.codePointAt(0) ?? 0), 0x01000193);
    return createRandom(hash >>> 0);
  }

  return { seed, next, int, bool: (probability = 0.5) => next() < probability, pick, shuffle, text, fork };
}
