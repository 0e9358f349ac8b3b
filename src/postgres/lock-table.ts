/** The lock table of a server, which all of its databases share. */

/** What is to be left for everybody else, as a share of the room. */
export const OTHERS_SHARE = 0.1;
/** A staging table of a batch, and what belongs to it. */
export const STAGE_LOCKS = 3;
/** Values of the setting are its default and multiples of it. */
const STEP = 64;

/** What max_locks_per_transaction has to be for so many locks. `sessions`: that it counts for. */
export function wantedPerTransaction(needed: number, sessions: number): number {
  return Math.ceil(needed / (1 - OTHERS_SHARE) / sessions / STEP) * STEP;
}
