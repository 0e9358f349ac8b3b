// An application of its own process that makes jobs and works them off at full speed, with one of two job queues. Its
// arguments: the queue, the URL, a prefix for the names of its jobs. On stdout: "made NAME" once a job is known to be
// committed, "error CODE MESSAGE" for what failed. It ends at SIGTERM, with the jobs that are in flight left as they are.
import pg from "pg";

const [queue, url, prefix] = process.argv.slice(2);
const pool = new pg.Pool({ connectionString: url, max: 14 });
pool.on("error", () => undefined);

/** @param {string} line */
const say = (line) => void process.stdout.write(`${line}\n`);
/** @param {unknown} error */
const complain = (error) => {
  const { code = "none", message } = /** @type {{ code?: string, message: string }} */ (error);
  say(`error ${code} ${message.replaceAll("\n", " ")}`);
};
/** @param {number} ms */
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What a job does, in the database that it comes from. @param {string} name */
const work = async (name) => void (await pool.query("insert into public.done (name) values ($1)", [name]));

const WORKERS = 4;
let number = 0;

/** @param {(name: string) => Promise<unknown>} make */
const produce = async (make) => {
  for (;;) {
    const name = `${prefix}-${++number}`;
    try {
      await make(name);
      say(`made ${name}`);
      await sleep(2);
    } catch (error) {
      complain(error);
      await sleep(20);
    }
  }
};

const db = {
  executeSql: async (/** @type {string} */ text, /** @type {unknown[]} */ values) =>
    await pool.query(text, values),
};

if (queue === "pg-boss") {
  const { default: PgBoss } = await import(String("pg-boss"));
  const boss = new PgBoss({
    db,
    supervise: true,
    schedule: false,
    migrate: false,
    maintenanceIntervalSeconds: 1,
  });
  boss.on("error", complain);
  await boss.start();
  const consume = async () => {
    for (;;) {
      try {
        const jobs = await boss.fetch("work", { batchSize: 4 });
        for (const job of jobs) {
          await work(job.data.name);
          await boss.complete("work", job.id);
        }
        if (jobs.length === 0) await sleep(10);
      } catch (error) {
        complain(error);
        await sleep(20);
      }
    }
  };
  for (let n = 0; n < WORKERS; n += 1) void consume();
  void produce(
    async (name) => await boss.send("work", { name }, { expireInSeconds: 5, retryLimit: 20, retryDelay: 1 }),
  );
} else {
  const { run, Logger } = await import(String("graphile-worker"));
  const runner = await run({
    pgPool: pool,
    concurrency: WORKERS,
    pollInterval: 50,
    noHandleSignals: true,
    taskList: { work: async (/** @type {{ name: string }} */ { name }) => await work(name) },
    logger: new Logger(
      () =>
        (
          /** @type {string} */ level,
          /** @type {string} */ message,
          /** @type {{ error?: unknown }} */ meta,
        ) => {
          if (level === "error" || level === "warning") complain(meta?.error ?? { message });
        },
    ),
  });
  runner.promise.catch(complain);
  void produce(async (name) => await runner.addJob("work", { name }, { maxAttempts: 25 }));
}

process.on("uncaughtException", complain);
process.on("unhandledRejection", complain);
process.on("SIGTERM", () => process.exit(0));
