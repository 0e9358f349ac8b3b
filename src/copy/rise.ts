/**
 * Progress that only rises. What is in flight is an estimate: bytes on the wire scaled to bytes on disk, of a part that may
 * have to be given back. What was shown once stays, until parts that had been committed are gone, as when a table is
 * copied again from its start.
 */
export class Rise {
  #committed = 0;
  #share = 0;

  /** Bytes to show as done, of `total`: those committed and those in flight, and not less of the whole than before. */
  done(committed: number, inFlight: number, total: number): number {
    if (committed < this.#committed) this.#share = 0;
    this.#committed = committed;
    const done = Math.min(total, Math.max(committed + inFlight, this.#share * total));
    this.#share = total > 0 ? done / total : 0;
    return Math.round(done);
  }
}
