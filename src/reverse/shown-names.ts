/** The ways of a sync have names of their own in the state. Users gave one name, and are told that one. */
import { ReplicateError } from "../errors.ts";
import type { SyncEvent } from "../events.ts";
import { retentionPointName, reverseName } from "../state/switch.ts";

/** Makes what is told of the ways of a sync tell of the sync. */
export class ShownNames {
  readonly #sync: string;

  constructor(sync: string) {
    this.#sync = sync;
  }

  text(text: string): string {
    return text
      .replaceAll(reverseName(this.#sync), this.#sync)
      .replaceAll(retentionPointName(this.#sync), this.#sync);
  }

  error(error: ReplicateError): ReplicateError {
    const { code, message, hint, problems, cause, sqlstate, side } = error;
    if (!this.#isIn([message, hint, ...problems.flatMap((each) => Object.values(each) as unknown[])]))
      return error;
    return new ReplicateError(code, this.text(message), {
      hint: this.text(hint),
      problems: problems.map((problem) => this.#strings(problem)),
      summary: this.text(error.summary),
      cause,
      sqlstate,
      side,
    });
  }

  event(event: SyncEvent): SyncEvent {
    return this.#isIn(Object.values(event)) ? this.#strings(event) : event;
  }

  /** The same for what is stored of an error. */
  stored<T extends object>(value: T | null): T | null {
    return value === null ? null : this.#strings(value);
  }

  #isIn(values: readonly unknown[]): boolean {
    return values.some((each) => typeof each === "string" && this.text(each) !== each);
  }

  #strings<T extends object>(value: T): T {
    const entries = Object.entries(value).map(([key, each]: [string, unknown]) => [
      key,
      typeof each === "string" ? this.text(each) : each,
    ]);
    return Object.fromEntries(entries) as T;
  }
}
