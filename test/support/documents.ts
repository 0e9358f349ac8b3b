import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// The documents that users get, and what is fenced in them.

export const root = fileURLToPath(new URL("../..", import.meta.url));

export function read(path: string): string {
  return readFileSync(join(root, path), "utf8");
}

/** The README and what is beside it; the decisions are for those who change the program. */
export const documents: readonly string[] = [
  "README.md",
  ...readdirSync(join(root, "docs"))
    .filter((name) => name.endsWith(".md"))
    .toSorted()
    .map((name) => `docs/${name}`),
];

export interface Block {
  document: string;
  language: string;
  /** The word behind the language: which scenario runs it. */
  mark: string;
  text: string;
}

/** What the document has between fences, without its indentation, in order. */
export function blocksOf(document: string): Block[] {
  const fenced = /^( *)```(\w*) ?([^\n]*)\n(.*?)^ *```$/gms;
  return [...read(document).matchAll(fenced)].map(([, indent = "", language = "", mark = "", text = ""]) => ({
    document,
    language,
    mark,
    text: text.replaceAll(new RegExp(`^${indent}`, "gm"), ""),
  }));
}

/** Something that one types into a shell, whatever the fence calls it. */
export function isShell({ language, text }: Block): boolean {
  const isTyped = /^ *(\$ |(replicate|npm|npx|pg_dump|psql|export) )/m.test(text);
  return ["sh", "bash", "shell", "zsh", "console"].includes(language) || (language !== "sql" && isTyped);
}

/** What a transcript types, and what it shows to have been printed. */
export function exchanges(text: string): { command: string; output: string }[] {
  return text
    .split(/^\$ /m)
    .slice(1)
    .map((each) => {
      const [command = "", ...output] = each.split("\n");
      return { command, output: output.join("\n").trim() };
    });
}

/** Output without what differs from run to run: figures, their units, addresses, hosts. */
export function withoutFigures(output: string): string {
  return output
    .trim()
    .replaceAll(/\S+@[^\s,]+/g, "ADDRESS")
    .replaceAll(/ on [\w.-]+, pid/g, " on HOST, pid")
    .replaceAll(/\d[\d.,]*\d|\d/g, "N")
    .replaceAll(/\bN (B|kB|MB|GB)\b/g, "N SIZE")
    .replaceAll(/\bN (ms|s|min|h)\b/g, "N TIME")
    .replaceAll(/, N rows\/s now/g, "")
    .replaceAll("batches", "batch");
}

/** What stands between two marks of a document. */
export function part(document: string, name: string): string {
  const [, text] = new RegExp(`<!-- ${name} -->\n(.*?)<!-- /${name} -->`, "s").exec(read(document)) ?? [];
  if (text === undefined) throw new Error(`${document} has no part ${name}`);
  return text;
}
