import { expect, test } from "vitest";

import type { TransformRow } from "../../../src/config/hooks.ts";
import { RowTransformer } from "../../../src/transform/transform-rows.ts";

const layout = { table: "public.t", fields: ["id", null, "a", "b"], keys: ["id"] };

function run(transform: TransformRow, ...pieces: (string | Buffer)[]): string {
  const transformer = new RowTransformer(layout, transform);
  return pieces.map((piece) => transformer.add(Buffer.from(piece)).data.toString()).join("");
}

test("fields come as they are written, and go back so", () => {
  const seen: unknown[] = [];
  const line = String.raw`1	t	a\tb\\n\n\r\b\f\v	\N` + "\n";
  expect(
    run((row) => {
      seen.push(row);
      return row;
    }, line),
  ).toBe(String.raw`1	t	a\tb\\n\n\r` + "\b\f\v\t\\N\n");
  expect(seen).toEqual([{ id: "1", a: "a\tb\\n\n\r\b\f\v", b: null }]);
});

test("pieces that end anywhere", () => {
  const whole = Buffer.from("1\tt\tä€😀\tx\n2\tt\t\\\\\ty\n3\tf\t\\N\t\\N\n");
  const up: TransformRow = ({ a }) => ({ a: `${a}!` });
  const expected = run(up, whole);
  expect(expected).toBe("1\tt\tä€😀!\tx\n2\tt\t\\\\!\ty\n3\tf\t\\N\t\\N\n");
  for (let at = 0; at <= whole.length; at += 1)
    expect(run(up, whole.subarray(0, at), whole.subarray(at))).toBe(expected);
});

test("what comes back: other types, nothing, columns left out", () => {
  const line = "1\tt\ta\tb\n";
  expect(run(() => ({ a: 5, b: null }), line)).toBe("1\tt\t5\t\\N\n");
  expect(run(() => ({ a: true, b: 5n }), line)).toBe("1\tt\ttrue\t5\n");
  expect(run(() => ({ b: undefined }), line)).toBe(line);
  expect(run(() => null, line)).toBe("1\tf\t\\N\t\\N\n");
  expect(
    new RowTransformer({ ...layout, fields: ["id", "a"] }, () => null).add(Buffer.from("1\ta\n")),
  ).toEqual({
    data: Buffer.alloc(0),
    rows: 1,
  });
});

test.for([
  { what: "a key", transform: () => ({ id: "2" }), said: "it changed the key id" },
  {
    what: "a strange column",
    transform: () => ({ c: "2" }),
    said: "a column c that the table does not have",
  },
  { what: "an object", transform: () => ({ a: new Date() as never }), said: "it returned an object as a" },
  { what: "no row", transform: () => 5 as never, said: "it returned number and no row" },
  { what: "a promise", transform: () => Promise.resolve(null) as never, said: "it returned a promise" },
])("refused: $what", ({ transform, said }) => {
  expect(() => run(transform, "1\tt\ta\tb\n")).toThrow(said);
});
