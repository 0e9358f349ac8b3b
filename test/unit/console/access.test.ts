import { describe, expect, it } from "vitest";

import { Access, isHostFit, isLoopback, isOriginFit } from "../../../src/console/access.ts";
import { parseListen } from "../../../src/console/console.ts";

const passwords = { operator: "correct horse", viewer: "battery staple" };

describe("passwords", () => {
  it.each([
    ["correct horse", "operator"],
    ["battery staple", "viewer"],
    ["correct hors", undefined],
    ["correct horse ", undefined],
    ["", undefined],
  ])("%j belongs to %s", (password, role) => {
    expect(new Access(passwords, "viewer").roleOf(password)).toBe(role);
  });

  it("an empty password opens nothing where one of the two is not set", () => {
    const access = new Access({ operator: "x", viewer: undefined }, "viewer");
    expect(access.roleOf("")).toBeUndefined();
  });

  it("five wrong ones from an address are enough for a minute, also for the right one", () => {
    let now = 0;
    const access = new Access(passwords, "viewer", () => now);
    for (let n = 0; n < 5; n++) expect(access.logIn("wrong", "10.0.0.1")).toBeNull();
    expect(access.logIn("correct horse", "10.0.0.1")).toBe(60);
    expect(access.logIn("correct horse", "10.0.0.2")).toMatchObject({ role: "operator" });
    now = 60_001;
    expect(access.logIn("correct horse", "10.0.0.1")).toMatchObject({ role: "operator" });
  });

  it("wrong ones from many addresses are limited as well", () => {
    const access = new Access(passwords, "viewer", () => 0);
    for (let n = 0; n < 60; n++) expect(access.logIn("wrong", `10.0.0.${n}`)).toBeNull();
    expect(access.logIn("correct horse", "10.0.1.1")).toBe(60);
  });
});

describe("sessions", () => {
  it("last twelve hours, and until the end that was asked for", () => {
    let now = 0;
    const access = new Access(passwords, "viewer", () => now);
    const begin = (): string => {
      const begun = access.logIn("correct horse", "a");
      if (begun === null || typeof begun === "number") throw new Error("not let in");
      return begun.cookie;
    };
    const cookie = begin();
    expect(access.sessionOf(cookie)).toMatchObject({ role: "operator" });
    expect(access.sessionOf(`${cookie}x`)).toBeUndefined();
    expect(access.sessionOf(undefined)).toBeUndefined();
    now = 12 * 3_600_000 + 1;
    expect(access.sessionOf(cookie)).toBeUndefined();
    const other = begin();
    access.logOut(other);
    expect(access.sessionOf(other)).toBeUndefined();
  });

  it("have a token each, which no other one's request may bring", () => {
    const access = new Access(passwords, "viewer");
    const sessions = [1, 2].map(() => {
      const begun = access.logIn("correct horse", "a");
      if (begun === null || typeof begun === "number") throw new Error("not let in");
      return access.sessionOf(begun.cookie) as { csrf: string };
    });
    const [one, two] = sessions as [{ csrf: string }, { csrf: string }];
    expect(access.isCsrf(one, one.csrf)).toBe(true);
    expect(access.isCsrf(one, two.csrf)).toBe(false);
    expect(access.isCsrf(one, undefined)).toBe(false);
    expect(access.isCsrf(one, "")).toBe(false);
  });
});

it.each([
  ["127.0.0.1:8080", true],
  ["localhost:8080", true],
  ["LOCALHOST", true],
  ["[::1]:8080", true],
  ["127.1.2.3", true],
  ["evil.example", false],
  ["127.0.0.1.evil.example", false],
  ["localhost.evil.example:8080", false],
  [undefined, false],
  ["", false],
])("a console of this machine alone answers to %s: %s", (host, fits) => {
  expect(isHostFit(host, true)).toBe(fits);
});

it.each([
  [undefined, "a:1", true],
  ["http://a:1", "a:1", true],
  ["https://a", "a", true],
  ["http://a:2", "a:1", false],
  ["http://evil.example", "a:1", false],
  ["null", "a:1", false],
])("origin %s at host %s: %s", (origin, host, fits) => {
  expect(isOriginFit(origin, host)).toBe(fits);
});

it.each([
  ["8080", "127.0.0.1", 8080],
  [":8080", "127.0.0.1", 8080],
  ["0.0.0.0:1", "0.0.0.0", 1],
  ["[::1]:80", "::1", 80],
  ["console.internal:80", "console.internal", 80],
])("--listen %s", (listen, host, port) => {
  expect(parseListen(listen)).toEqual({ host, port });
});

it.each(["", "host", "host:", "a:b", "1.2.3.4:99999", "::1:80", "http://x:80"])(
  "--listen %j is refused",
  (listen) => {
    expect(() => parseListen(listen)).toThrow(expect.objectContaining({ code: "CONFIG_INVALID" }));
  },
);

it.each([
  ["127.0.0.1", true],
  ["::1", true],
  ["localhost", true],
  ["0.0.0.0", false],
  ["::", false],
  ["10.1.1.1", false],
])("%s is this machine alone: %s", (host, is) => {
  expect(isLoopback(host)).toBe(is);
});
