import { mkdtempSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";

import { compareDatabases } from "./compare.ts";
import { freePair, type Database, type Pair } from "./database.ts";
import { runFolder } from "./run-folder.ts";
import { replicate, type Finished } from "./replicate.ts";

// Several databases that take writes, joined by syncs that are set up and run through the command.

export type Master = "a" | "b" | "c" | "d";

export interface Joint {
  name: string;
  source: Master;
  target: Master;
  /** What follows in the configuration file, as JSON, which YAML takes as well. */
  settings: Record<string, unknown>;
}

export class Masters implements AsyncDisposable {
  readonly a: Database;
  readonly b: Database;
  readonly c: Database;
  readonly d: Database;
  /** Where configuration files and resolvers are. */
  readonly folder: string;
  readonly #pairs: readonly Pair[];
  readonly #names: string[] = [];

  private constructor(pairs: readonly [Pair, Pair]) {
    this.#pairs = pairs;
    [this.a, this.b, this.c, this.d] = [pairs[0].source, pairs[0].target, pairs[1].source, pairs[1].target];
    this.folder = mkdtempSync(join(runFolder(), "masters-"));
  }

  /** Runs the statements in each database, of which there are four. */
  static async start(schema: string): Promise<Masters> {
    const masters = new Masters([await freePair(), await freePair()]);
    for (const each of [masters.a, masters.b, masters.c, masters.d]) await each.sql(schema);
    return masters;
  }

  write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text);
  }

  /** `replicate VERB` with the configuration file of a joint. */
  async run(name: string, ...args: string[]): Promise<Finished> {
    return await replicate([...args, "--config", join(this.folder, `${name}.yaml`)], { cwd: this.folder });
  }

  /** Sets up a joint: the target gets the rows of the source. */
  async join({ name, source, target, settings }: Joint): Promise<void> {
    this.configure({ name, source, target, settings });
    for (const verb of ["init", "copy"]) {
      const finished = await this.run(name, verb);
      expect(finished.code, `${verb} ${name}: ${finished.stderr}${finished.stdout}`).toBe(0);
    }
    this.#names.push(name);
  }

  configure({ name, source, target, settings }: Joint): void {
    const urls = { source: this[source].url, target: this[target].url };
    this.write(`${name}.yaml`, JSON.stringify({ name, ...urls, ...settings }));
  }

  /** Follows each sync in turn until none has anything left to apply. Returns how many batches there were. */
  async settle(): Promise<number> {
    const open = new Set(this.#names);
    let batches = 0;
    for (let runs = 0; open.size > 0; runs += 1) {
      if (runs > 10 * this.#names.length) throw new Error("changes keep going around");
      const [name] = open;
      const { code, stdout, stderr } = await this.run(String(name), "follow", "--until-caught-up", "--json");
      expect(code, `follow ${name}: ${stderr}${stdout}`).toBe(0);
      const applied = stdout.split("\n").filter((line) => line.includes('"batch-applied"')).length;
      // What it has brought is news for the others.
      if (applied > 0) for (const each of this.#names) open.add(each);
      open.delete(String(name));
      batches += applied;
    }
    return batches;
  }

  /** The same rows in each of these databases, and what they are, in the order of the first column. */
  async rows(query: string, ...names: readonly Master[]): Promise<unknown[]> {
    const [first, ...others] = await Promise.all(names.map(async (name) => await this[name].sql(query)));
    for (const other of others) expect(other).toEqual(first);
    return first ?? [];
  }

  /** All rows of all tables are the same. */
  async assertEqual(...names: readonly Master[]): Promise<void> {
    const [first, ...others] = names;
    for (const other of others) {
      const { differences } = await compareDatabases(this[first as Master].url, this[other].url);
      expect(differences).toEqual([]);
    }
  }

  /** What `replicate conflicts` tells of a sync. */
  async conflicts(name: string): Promise<readonly Record<string, unknown>[]> {
    const { code, stdout, stderr } = await this.run(name, "conflicts", "--json");
    expect(code, stderr).toBe(0);
    return (JSON.parse(stdout) as { conflicts: Record<string, unknown>[] }).conflicts;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const pair of this.#pairs) await pair.dispose();
  }
}
