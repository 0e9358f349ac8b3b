-- What: the tables of the benchmarks, without keys and indexes. Runs on both sides.
create type plan as enum ('free', 'basic', 'pro');
create table account (id integer not null, branch integer not null, balance integer not null, filler character(84));
create table customer (
  id uuid not null, email text not null, name text not null, plan plan not null, tags text[] not null,
  address jsonb, credit numeric(12, 2), created_at timestamptz not null, avatar bytea
);
create table document (id bigint not null, customer_id uuid not null, title text, body text, version integer, changed_at timestamptz);
create table measurement (
  device text not null, at timestamptz not null, temperature double precision, humidity real, state smallint, note text
);
