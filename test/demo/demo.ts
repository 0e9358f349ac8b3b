/**
 * The whole life of a sync, told on two servers that are started for it: a shop moves from PostgreSQL 13 to 18 while
 * its customers go on buying.
 */
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";

import { startCluster, type Cluster } from "../support/cluster.ts";
import { compareDatabases } from "../support/compare.ts";
import { leastPrivilegedPair, type LeastPrivilegedPair } from "../support/least-privileged-pair.ts";
import { removeRunFolder } from "../support/run-folder.ts";
import { Replicate } from "./replicate.ts";
import { startWriters, type Writers } from "./writers.ts";

const startedAt = performance.now();
const clusters: Promise<Cluster>[] = [];
let replicate: Replicate | undefined;
let chapters = 0;

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
  process.on(signal, () => void endEarly(signal));
let isEnding = false;

try {
  await tell();
  await cleanUp();
  say(
    `Done in ${((performance.now() - startedAt) / 1000).toFixed(0)} s. Both servers and all their files are gone.`,
  );
} catch (error) {
  // What fails because everything is being torn down needs no telling.
  if (isEnding) await new Promise(() => undefined);
  console.error(error);
  await cleanUp();
  // The writers would go on trying.
  process.exit(1);
}

async function tell(): Promise<void> {
  chapter("Two servers");
  clusters.push(startCluster({ version: "13" }), startCluster({ version: "18" }));
  const [old, young] = (await Promise.all(clusters)) as [Cluster, Cluster];
  const pair = await leastPrivilegedPair({ source: old, target: young });
  // Many providers grant this. Without it foreign keys would be restored only at the end.
  await pair.target.asAdmin(`grant set on parameter session_replication_role to ${pair.target.owner.name}`);
  say(
    `The source, PostgreSQL ${old.version}, and the target, PostgreSQL ${young.version}, run on this machine.`,
    "Nothing below is done by a superuser: the owner of the tables is enough on both sides.",
  );

  chapter("A shop, and the same shop with empty shelves");
  const schema = await readFile(new URL("./shop.sql", import.meta.url), "utf8");
  await Promise.all([pair.source.sql(schema), pair.target.sql(schema)]);
  await pair.source.sql(await readFile(new URL("./rows.sql", import.meta.url), "utf8"));
  await showRows(pair);

  chapter("Customers come in");
  const writers = startWriters(await Promise.all([1, 2, 3, 4].map(() => pair.source.client("writer"))));
  await sleep(1000);
  say(
    "Four writers order, pay, cancel, rename products (which changes keys), swap e-mail addresses, delete accounts",
    "(which takes their orders along), and move rows between partitions. They go on until the end, logged in as a",
    "role that knows nothing of the replication.",
  );
  showExperience(writers);

  replicate = new Replicate({ REPLICATE_SOURCE: pair.source.url, REPLICATE_TARGET: pair.target.url });
  await move(replicate, writers, pair);
  await pair.target.asAdmin(
    `revoke set on parameter session_replication_role from ${pair.target.owner.name}`,
  );
  // Fails if a connection was left open.
  await pair.dispose();
  say("Schema replicate is gone from both servers, and nobody is connected any more.");
}

async function move(command: Replicate, writers: Writers, pair: LeastPrivilegedPair): Promise<void> {
  chapter("init: from now on the source records which rows change");
  await command.run("init");

  chapter("copy: all rows, several tables at a time, indexes rebuilt afterwards");
  await command.run("copy");
  showExperience(writers);

  chapter("follow: what changed meanwhile, and what changes now");
  const following = command.start("follow");
  await sleep(6000);

  chapter("verify: is it all the same, with customers still buying?");
  await command.run("verify");
  await command.run("status");

  chapter("Stop it whenever you like: it goes on where it was");
  await following.stop();
  await sleep(2000);
  await command.run("status");

  chapter("The last customers leave; what they left behind is applied");
  await writers.stop();
  showExperience(writers);
  if (writers.experience().failures.length > 0) {
    throw new Error(`writers failed: ${[...new Set(writers.experience().failures)].join("; ")}`);
  }
  await command.run("follow", "--until-caught-up");
  await command.run("verify");
  await command.run("sequences");

  chapter("drop: everything that was installed goes away again");
  await command.run("drop", "--yes");

  chapter("And is it true?");
  const { rows, differences } = await compareDatabases(pair.source.adminUrl, pair.target.adminUrl);
  if (differences.length > 0) throw new Error(`different: ${JSON.stringify(differences.slice(0, 5))}`);
  say(`Another program has read all ${number(rows)} rows of both servers and found no difference.`);
  for (const side of [pair.source, pair.target]) {
    const left = await side.asAdmin("select from pg_namespace where nspname = 'replicate'");
    if (left.length > 0) throw new Error(`schema replicate is still there in ${side.name}`);
  }
  const [order] = await pair.target.asWriter<{ id: string }>(
    "insert into orders (customer_id) select id from customer limit 1 returning id",
  );
  say(`The shop opens on PostgreSQL 18: its first order there has the number ${number(Number(order?.id))}.`);
}

async function showRows({ source }: LeastPrivilegedPair): Promise<void> {
  const notes: Record<string, string> = {
    customer: "uuid key, enum, domain, arrays, jsonb; GIN and expression indexes",
    product: "text key, numeric, partial index",
    picture: "bytea of 12 kB each",
    stock: "key of two columns",
    orders: "bigint identity, foreign key with ON DELETE CASCADE",
    order_item: "generated column, cascades twice",
    event: "five partitions by date",
  };
  for (const [table, note] of Object.entries(notes)) {
    const [count] = await source.sql<{ rows: number }>(`select count(*)::int as rows from ${table}`);
    console.log(`  ${table.padEnd(11)} ${number(count?.rows ?? 0).padStart(8)} rows   ${note}`);
  }
}

function showExperience(writers: Writers): void {
  const { transactions, failures, slowestMs } = writers.experience();
  say(
    `The shop so far: ${number(transactions)} transactions, ${failures.length} failed, the slowest took ${slowestMs.toFixed(0)} ms.`,
  );
}

function chapter(title: string): void {
  chapters++;
  console.log(`\n${chapters}. ${title}`);
}

function say(...lines: readonly string[]): void {
  for (const line of lines) console.log(`  ${line}`);
}

function number(value: number): string {
  return value.toLocaleString("en-US");
}

async function cleanUp(): Promise<void> {
  await replicate?.stopAll();
  for (const cluster of await Promise.allSettled(clusters)) {
    if (cluster.status === "fulfilled") await cluster.value.stop();
  }
  removeRunFolder();
}

/** Ctrl-C reaches us more than once: from the terminal, and from the programs that started this one. */
async function endEarly(signal: NodeJS.Signals): Promise<void> {
  if (isEnding) return;
  isEnding = true;
  console.log(`\n${signal}: stopping both servers and removing their files`);
  await cleanUp();
  process.exit(130);
}
