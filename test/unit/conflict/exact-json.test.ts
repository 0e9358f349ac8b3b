import { expect, it } from "vitest";

import { parseExact } from "../../../src/conflict/exact-json.ts";

it.each<[string, unknown]>([
  [`{"id": 21, "price": 1.50, "ok": true, "none": null}`, { id: 21, price: 1.5, ok: true, none: null }],
  [`{"id": 999999999999999}`, { id: 999_999_999_999_999 }],
  [`{"id": 9007199254740993}`, { id: "9007199254740993" }],
  [`{"id": -0.1234567890123456789}`, { id: "-0.1234567890123456789" }],
  [`[{"a": [12345678901234567890, 1]}]`, [{ a: ["12345678901234567890", 1] }]],
  [
    String.raw`{"12345678901234567890": "a \"12345678901234567890\" \\", "b": 12345678901234567890}`,
    { "12345678901234567890": String.raw`a "12345678901234567890" ` + "\\", b: "12345678901234567890" },
  ],
  [`{}`, {}],
])("%s keeps every digit", (text, value) => {
  expect(parseExact(text)).toEqual(value);
});
