import { describe, expect, it } from "vitest";

import { ReplicateError } from "../../../src/errors.ts";
import { asReplicateError, sideOf, toldBy } from "../../../src/postgres/sqlstate.ts";

// Which server an error came from is known by the session, and read out of no sentence.

describe("the side of an error", () => {
  it.each(["source", "target"] as const)("is that of the session: %s", (side) => {
    const other = side === "source" ? "target" : "source";
    const error = new Error(`the ${other} has failed`);
    expect(toldBy(side, error)).toBe(error);
    expect(sideOf(error)).toBe(side);
    expect(asReplicateError(error, `asking the ${other}`).side).toBe(side);
    expect(new ReplicateError("CONNECTION_LOST", "gone", { side }).side).toBe(side);
    expect(sideOf(new Error("around it", { cause: error }))).toBe(side);
  });

  it("is the first that was told", () => {
    const error = new Error("x");
    toldBy("source", error);
    toldBy("target", error);
    expect(sideOf(error)).toBe("source");
    expect(sideOf(toldBy("target", new Error("around it", { cause: error })))).toBe("source");
  });

  it("is unknown where nobody told it", () => {
    for (const error of [new Error("the target is away"), "the source", undefined, null, 1])
      expect(sideOf(error)).toBeUndefined();
    expect(asReplicateError(new Error("the target is away"), "x").side).toBeUndefined();
    expect(sideOf(toldBy("source", "text"))).toBeUndefined();
  });
});
