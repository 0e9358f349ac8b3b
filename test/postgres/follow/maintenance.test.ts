import { expect, test } from "vitest";

import { freePair } from "../../support/database.ts";
import { startFollowed } from "../../support/follow-setup.ts";

// What keeps the delta tables small is done without data definition where it can, and put off where it is refused.

test(
  "a freeze of all DDL on the source: changes go on to be applied, and it is said",
  { timeout: 60_000 },
  async () => {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, "create table t (id int primary key, v text)");
    await followed.drain();
    await pair.source.sql(
      `create function frozen() returns event_trigger language plpgsql as $$ begin raise exception 'schema is frozen until monday'; end $$;
     create event trigger freeze_all on ddl_command_start execute procedure frozen()`,
    );
    // More than is kept without a switch.
    await pair.source.sql("insert into t select g, 'v' from generate_series(1, 90000) g");
    const stop = new AbortController();
    let batches = 0;
    const following = (async () => {
      for await (const _ of followed.sync.follow({ signal: stop.signal })) batches += 1;
    })();
    await expect.poll(() => batches, { timeout: 30_000 }).toBeGreaterThan(0);
    for (let n = 1; n <= 3; n += 1) {
      await pair.source.sql("update t set v = v || 'x' where id % 2 = 0");
      await expect
        .poll(async () => await pair.target.sql("select max(length(v)) as n from t"), { timeout: 30_000 })
        .toEqual([{ n: n + 1 }]);
    }
    const { upkeep } = await followed.sync.status();
    stop.abort();
    await following;
    expect(followed.events).toContainEqual({
      type: "warning",
      message: expect.stringContaining("schema is frozen until monday"),
    });
    expect(upkeep).toMatchObject({
      message: expect.stringContaining("frozen until monday"),
      hint: expect.stringContaining("event trigger"),
    });
    await pair.source.sql("drop event trigger freeze_all");
    expect(await followed.differences()).toEqual([]);
    // Nothing is put off any more.
    expect((await followed.sync.status()).upkeep).toBeNull();
  },
);

test(
  "an audit of all DDL that is replicated itself: an idle database stays idle",
  { timeout: 60_000 },
  async () => {
    await using pair = await freePair();
    await using followed = await startFollowed(
      pair,
      "create table t (id int primary key, v text); create table ddl_history (id bigserial primary key, tag text)",
    );
    await followed.drain();
    await pair.source.sql(
      `create function note() returns event_trigger language plpgsql as $$ begin insert into public.ddl_history (tag) values (tg_tag); end $$;
     create event trigger note_all on ddl_command_end execute procedure note()`,
    );
    await pair.source.sql("insert into t select g, 'v' from generate_series(1, 100) g");
    // Each of them throws away what is applied.
    for (let n = 0; n < 5; n += 1) await followed.drain();
    expect(await pair.source.sql("select tag from ddl_history")).toEqual([]);
    expect(
      await pair.source.sql(
        "select sum(pg_relation_size(delta_a) + pg_relation_size(delta_b))::int as bytes from replicate.capture",
      ),
    ).toEqual([{ bytes: 0 }]);
  },
);

test(
  "writers do not wait, and lose nothing, while the table that they write to is emptied",
  { timeout: 60_000 },
  async () => {
    await using pair = await freePair();
    await using followed = await startFollowed(pair, "create table t (id int primary key, v int)");
    await followed.drain();
    // Somebody in flight: nothing is emptied, and nobody who comes later waits behind us.
    const open = await pair.source.client();
    await open.query("begin; insert into t values (1, 1)");
    await pair.source.sql("insert into t values (2, 2)");
    await followed.drain();
    await pair.source.sql("set statement_timeout = '2s'; insert into t values (3, 3)");
    await open.query("commit");
    await open.end();
    expect(await followed.differences()).toEqual([]);
    expect(await pair.target.sql("select count(*)::int as n from t")).toEqual([{ n: 3 }]);
  },
);
