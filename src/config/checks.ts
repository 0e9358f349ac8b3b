/** The check of settings that reports every mistake at once, and the forms of sizes and times. */
import type { Side } from "../events.ts";
import { parsePattern } from "../catalog/patterns.ts";
import { problemsError, ReplicateError, type Problem } from "../errors.ts";
import { resolveConnection, type ConnectionSettings } from "../postgres/conninfo.ts";
import { didYouMean } from "./spelling.ts";

const megabyte = 1024 ** 2;

/** The error for settings that are wrong. */
export function configInvalid(problems: readonly Problem[]): ReplicateError {
  const count = problems.length === 1 ? "one setting is" : `${problems.length} settings are`;
  return problemsError("CONFIG_INVALID", `${count} wrong`, problems);
}

/** Bytes of a size: a number, or text with a unit of 1024 (`B`, `kB`, `MB`, `GB`, `TB`). Undefined if it is none. */
export function parseSize(size: string | number): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(B|[kMGT]i?B)?\s*$/i.exec(String(size));
  if (match === null) return undefined;
  const power = ["B", "K", "M", "G", "T"].indexOf((match[2]?.[0] ?? "B").toUpperCase());
  const bytes = Math.round(Number(match[1]) * 1024 ** power);
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}

const secondsOf = { s: 1, m: 60, min: 60, h: 3600, d: 86_400, w: 604_800 } as const;

/**
 * Seconds of a time: a number, or text with a unit (`s`, `m` or `min`, `h`, `d`, `w`). Undefined if it is none, or is
 * longer than a thousand years.
 */
export function parseDuration(time: string | number): number | undefined {
  const match = /^\s*(\d+(?:\.\d+)?)\s*(s|m|min|h|d|w)?\s*$/.exec(String(time));
  if (match === null) return undefined;
  const seconds = Number(match[1]) * secondsOf[(match[2] ?? "s") as keyof typeof secondsOf];
  return seconds <= 1000 * 366 * secondsOf.d ? seconds : undefined;
}

/** Reads values of unknown type and collects what is wrong with them. Undefined: wrong, and reported. */
export class Check {
  readonly problems: Problem[] = [];

  problem(subject: string, message: string): undefined {
    this.problems.push({ subject, message });
  }

  object(path: string, value: unknown, known?: readonly string[]): Readonly<Record<string, unknown>> {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.problem(path || "settings", "has to be a set of names and values");
      return {};
    }
    const entries = Object.entries(value).filter(([, each]) => each !== undefined);
    for (const [key] of known === undefined ? [] : entries) {
      if (known?.includes(key)) continue;
      const subject = path === "" ? key : `${path}.${key}`;
      this.problem(subject, `is no setting${didYouMean(key, known ?? [])}`);
    }
    return Object.fromEntries(entries);
  }

  text(path: string, value: unknown): string | undefined {
    return typeof value === "string" ? value : this.problem(path, "has to be a text");
  }

  integer(path: string, value: unknown, least: number, most: number): number | undefined {
    // A flag or an expanded variable comes as text.
    const number = typeof value === "string" && /^\s*\d+\s*$/.test(value) ? Number(value) : value;
    const isRight =
      typeof number === "number" && Number.isInteger(number) && number >= least && number <= most;
    return isRight ? number : this.problem(path, `has to be a whole number from ${least} to ${most}`);
  }

  size(path: string, value: unknown, leastBytes: number): number | undefined {
    const bytes = typeof value === "string" || typeof value === "number" ? parseSize(value) : undefined;
    if (bytes === undefined) return this.problem(path, "has to be a size such as 128MB or 1GB");
    const least = leastBytes < megabyte ? `${leastBytes / 1024}kB` : `${leastBytes / megabyte}MB`;
    return bytes >= leastBytes ? bytes : this.problem(path, `has to be at least ${least}`);
  }

  oneOf<T extends string>(path: string, value: unknown, allowed: readonly T[]): T | undefined {
    if (value === undefined || value === null) return undefined;
    const found = allowed.find((each) => each === value);
    return found ?? this.problem(path, `has to be one of ${allowed.join(", ")}${guess(value, allowed)}`);
  }

  boolean(path: string, value: unknown): boolean | undefined {
    if (value === undefined || value === null || typeof value === "boolean") return value ?? undefined;
    return this.problem(path, "has to be true or false");
  }

  /** Seconds. */
  duration(path: string, value: unknown): number | undefined {
    const seconds = typeof value === "string" || typeof value === "number" ? parseDuration(value) : undefined;
    return seconds ?? this.problem(path, "has to be a time such as 30d, 12h or 15m");
  }

  patterns(path: string, value: unknown): readonly string[] | undefined {
    if (value === undefined || value === null) return undefined;
    if (!Array.isArray(value) || !value.every((each) => typeof each === "string")) {
      return this.problem(path, 'has to be a list of patterns such as ["public.*"]');
    }
    return value.filter((each) => this.attempt(path, () => parsePattern(each)) !== undefined);
  }

  connection(side: Side, value: unknown, env: NodeJS.ProcessEnv): ConnectionSettings | undefined {
    if (value === undefined || value === null || value === "") {
      const variable = `REPLICATE_${side.toUpperCase()}`;
      return this.problem(
        side,
        `is missing: give --${side}, the variable ${variable}, or a line in the file; in a program, the option ${side}`,
      );
    }
    const text = this.text(side, value);
    const password = env[`REPLICATE_${side.toUpperCase()}_PASSWORD`] || env["PGPASSWORD"];
    return text === undefined
      ? undefined
      : this.attempt(side, () => resolveConnection(text, password ? { ...env, PGPASSWORD: password } : env));
  }

  /** Takes over the problems of a ReplicateError, under the path of the setting. */
  attempt<T>(path: string, read: () => T): T | undefined {
    try {
      return read();
    } catch (error) {
      if (!(error instanceof ReplicateError)) throw error;
      for (const { subject, message } of error.problems) {
        this.problem(path, path === subject || subject === "connection" ? message : `${subject}: ${message}`);
      }
      return undefined;
    }
  }
}

/** What a word that is none of those allowed was probably meant to be. */
function guess(value: unknown, allowed: readonly string[]): string {
  return typeof value === "string" ? didYouMean(value, allowed) : "";
}
