/**
 * What goes where: the result to stdout, as text or JSON; logs and progress to stderr, as lines, or as a block that
 * is drawn again and again at the bottom of a terminal.
 */
import { pino, type Level } from "pino";
import type { Logger, ReplicateError } from "../index.ts";
import type { Terminal } from "./terminal.ts";

export interface OutputOptions {
  /** The result as JSON. */
  readonly json: boolean;
  readonly logLevel: string;
  readonly logFormat: "text" | "json";
}

/** Milliseconds between two drawings on a terminal, and between two lines elsewhere. */
const redrawMs = 100;
const lineMs = 5000;

export class Output {
  readonly json: boolean;
  /** For the library too. */
  readonly log: Logger;
  readonly #terminal: Terminal;
  readonly #showsBlock: boolean;
  #block: readonly string[] = [];
  #lastDraw = 0;

  constructor(terminal: Terminal, options: OutputOptions) {
    this.json = options.json;
    this.#terminal = terminal;
    const isInfo = ["trace", "debug", "info"].includes(options.logLevel);
    this.#showsBlock = terminal.stderr.isTTY === true && options.logFormat === "text" && isInfo;
    const isText = options.logFormat === "text";
    this.log = pino(
      { level: options.logLevel, base: null, timestamp: pino.stdTimeFunctions.isoTime },
      { write: (line: string) => this.#printAbove(isText ? textOf(line) : line) },
    );
  }

  /** The result for people. */
  print(...lines: readonly string[]): void {
    if (this.json) return;
    this.#printAbove(lines.map((line) => `${line}\n`).join(""), this.#terminal.stdout);
  }

  /** The result for programs: one document. */
  document(value: unknown): void {
    if (this.json) this.#printAbove(`${toJson(value, 2)}\n`, this.#terminal.stdout);
  }

  /** One of several documents, on a line of its own. */
  line(value: unknown): void {
    if (this.json) this.#printAbove(`${toJson(value)}\n`, this.#terminal.stdout);
  }

  /**
   * Progress: on a terminal `block` is drawn in place of the one before; elsewhere `text` becomes a line of the log
   * every few seconds. `isLast` is said in any case.
   */
  progress(block: () => readonly string[], text: () => string, isLast = false): void {
    const now = Date.now();
    if (!isLast && now - this.#lastDraw < (this.#showsBlock ? redrawMs : lineMs)) return;
    this.#lastDraw = now;
    if (!this.#showsBlock) {
      this.log.info({}, text());
      return;
    }
    this.#erase();
    this.#block = block();
    this.#draw();
  }

  /** Ends the block: it stays where it is, or vanishes. */
  endProgress(stays = false): void {
    if (!stays) this.#erase();
    this.#block = [];
    this.#lastDraw = 0;
  }

  /** Replaces what was shown before, for `--watch`. */
  redraw(lines: readonly string[]): void {
    const { stdout } = this.#terminal;
    const text = lines.map((line) => `${line}\n`).join("");
    stdout.write(stdout.isTTY === true ? `\u001B[H\u001B[2J${text}` : `${text}\n`);
  }

  /** An error for people on stderr, and with --json for programs on stdout, in one line if others came before. */
  error(error: ReplicateError, options: { readonly withStack: boolean; readonly isLine: boolean }): void {
    const { code, summary: message, hint, problems } = error;
    const lines = [`error ${code}: ${message}`];
    for (const problem of problems) {
      lines.push(`  ${problem.subject}: ${problem.message}`);
      if (problem.remedy !== undefined)
        lines.push(...problem.remedy.split("\n").map((line) => `      ${line}`));
    }
    lines.push(`hint: ${hint}`);
    if (options.withStack) lines.push(stackOf(error));
    this.#printAbove(lines.map((line) => `${line}\n`).join(""));
    const document = { error: { code, message, hint, problems } };
    if (options.isLine) this.line(document);
    else this.document(document);
  }

  #printAbove(text: string, stream = this.#terminal.stderr): void {
    const block = this.#block;
    if (block.length > 0) this.#erase();
    stream.write(text);
    if (block.length > 0) {
      this.#block = block;
      this.#draw();
    }
  }

  #draw(): void {
    const width = this.#terminal.stderr.columns || 80;
    this.#terminal.stderr.write(this.#block.map((line) => `${cut(line, width - 1)}\n`).join(""));
  }

  #erase(): void {
    if (this.#block.length > 0) this.#terminal.stderr.write(`\u001B[${this.#block.length}A\u001B[J`);
    this.#block = [];
  }
}

/** Counts beyond what JSON's readers can hold exactly become text. */
export function toJson(value: unknown, indent?: number): string {
  const replace = (_: string, each: unknown): unknown => {
    if (typeof each !== "bigint") return each;
    return BigInt(Number(each)) === each && Number.isSafeInteger(Number(each)) ? Number(each) : String(each);
  };
  return JSON.stringify(value, replace, indent);
}

/** `12:03:11 warn message (field=value)` */
function textOf(line: string): string {
  const entry = JSON.parse(line) as Record<string, unknown>;
  const { level, time, msg, err, ...fields } = entry;
  const shown = {
    ...fields,
    ...(err === undefined ? {} : { error: (err as { message?: unknown }).message }),
  };
  const rest = Object.entries(shown).map(
    ([name, each]) => `${name}=${typeof each === "string" ? each : toJson(each)}`,
  );
  const label = pino.levels.labels[Number(level)] as Level;
  const word = label === "info" ? "" : `${label}: `;
  return `${String(time).slice(11, 19)} ${word}${String(msg)}${rest.length > 0 ? ` (${rest.join(", ")})` : ""}\n`;
}

/** The stacks of an error and its causes, without what their messages say already. */
function stackOf(error: unknown): string {
  const stacks: string[] = [];
  for (let each = error; each instanceof Error; each = each.cause) stacks.push(each.stack ?? String(each));
  return stacks.join("\ncaused by: ");
}

function cut(line: string, width: number): string {
  return line.length <= width ? line : `${line.slice(0, Math.max(0, width - 1))}…`;
}
