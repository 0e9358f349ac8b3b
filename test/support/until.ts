import { setTimeout as sleep } from "node:timers/promises";

const patienceMs = 90_000;

/** Asks again and again until the answer is neither undefined nor false, and returns it. Errors are answers too: they are thrown. */
export async function until<T>(
  what: string,
  ask: () => Promise<T | undefined | false> | T | undefined | false,
): Promise<T> {
  const deadline = Date.now() + patienceMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > deadline) throw new Error(`it does not happen: ${what}`);
    await sleep(20);
  }
}
