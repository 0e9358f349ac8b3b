-- What: the sequences whose numbers are shared out between databases, so that no two of them give out the same.
-- Runs on: source and target, inside one transaction, at `init` or when they are shared out.
-- Returns: nothing.

create table replicate.interleaved (
  sync text not null,
  relid oid not null,               -- the sequence in this database
  increment bigint not null,        -- before
  shares integer not null,
  share integer not null check (share between 1 and shares),
  primary key (sync, relid)
);
