-- What: leases: who may do what only one process may do at a time. Rows, not advisory locks, which any role may take.
-- Runs on: source and target, inside one transaction, at `init`, or when a sync of an earlier version is followed.
-- Returns: nothing.

create table replicate.lease (
  -- runner SYNC, on its target: follows it. reader SYNC, on its source: reads its changes. switch SYNC, on its target:
  -- switches its sides. index, on a source: builds indexes on delta tables.
  name text primary key,
  -- Of the holder alone. What is done under a lease compares it and keeps the row until its commit, so that a holder who
  -- has lost the lease can commit nothing, and nobody takes it in the middle.
  token text not null,
  host text not null,
  process integer not null,
  -- The holder's session. When it is gone, so is the holder; unless the pid is all that this role is shown of it.
  backend integer not null,
  backend_start timestamptz not null,
  -- A pool keeps sessions when their clients are gone.
  is_pooled boolean not null,
  -- Kept as long as the session is there, also in silence.
  is_bound boolean not null,
  taken_at timestamptz not null default pg_catalog.clock_timestamp(),
  -- By this server's clock. Renewed by the holder.
  expires_at timestamptz not null,
  -- Why the holder is asked to end, by somebody who waits for it.
  asked text
);

-- Whose turn it is where several syncs bring changes to one table: a lock on the capture's row here until the commit.
create table replicate.turn (
  capture_id integer primary key
);

-- Whether the holder is there. Renewed or not, it is while its session is at something.
create function replicate.is_alive(held replicate.lease)
returns boolean
language sql
set search_path = pg_catalog
as $function$
  select exists (
    select 1 from pg_catalog.pg_stat_activity a
    where a.pid = (held).backend and (a.backend_start is null or a.backend_start = (held).backend_start)
      and ((held).expires_at > pg_catalog.clock_timestamp()
        or not (held).is_pooled and a.backend_start is not null and ((held).is_bound or a.xact_start is not null)))
$function$;

-- Takes a lease for this session: it is free, ours by the token, its holder is gone, or it is taken by force. Returns
-- {taken, before}, the lease as somebody else had it. Never in the middle of what is done under it.
create function replicate.take_lease(
  lease_name text, new_token text, new_host text, new_process integer, pooled boolean, bound boolean,
  seconds double precision, forced boolean)
returns jsonb
language plpgsql
set search_path = pg_catalog
as $function$
declare
  started timestamptz := (select a.backend_start from pg_catalog.pg_stat_activity a where a.pid = pg_catalog.pg_backend_pid());
  expires timestamptz := pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => seconds);
  held replicate.lease;
begin
  loop
    insert into replicate.lease (name, token, host, process, backend, backend_start, is_pooled, is_bound, expires_at)
    values (lease_name, new_token, new_host, new_process, pg_catalog.pg_backend_pid(), started, pooled, bound, expires)
    on conflict (name) do nothing;
    if found then
      return pg_catalog.jsonb_build_object('taken', true, 'before', null);
    end if;
    select * into held from replicate.lease l where l.name = lease_name for update skip locked;
    exit when found;
    select * into held from replicate.lease l where l.name = lease_name;
    if found then
      return pg_catalog.jsonb_build_object('taken', false, 'before', pg_catalog.to_jsonb(held));
    end if;
  end loop;
  if held.token <> new_token and not forced and replicate.is_alive(held) then
    return pg_catalog.jsonb_build_object('taken', false, 'before', pg_catalog.to_jsonb(held));
  end if;
  update replicate.lease l
     set token = new_token, host = new_host, process = new_process, backend = pg_catalog.pg_backend_pid(),
         backend_start = started, is_pooled = pooled, is_bound = bound, expires_at = expires,
         taken_at = case when l.token = new_token then l.taken_at else pg_catalog.clock_timestamp() end,
         asked = case when l.token = new_token then l.asked end
   where l.name = lease_name;
  return pg_catalog.jsonb_build_object('taken', true, 'before', case when held.token <> new_token then pg_catalog.to_jsonb(held) end);
end
$function$;

-- Keeps a lease until the end of the transaction; raises SQLSTATE RE004 where it is lost. The holder can renew it meanwhile.
create function replicate.keep_lease(lease_name text, our_token text)
returns void
language plpgsql
set search_path = pg_catalog
as $function$
begin
  perform 1 from replicate.lease l where l.name = lease_name and l.token = our_token for key share;
  if not found then
    raise exception using errcode = 'RE004', message = pg_catalog.format('another process has taken over: %s', lease_name);
  end if;
end
$function$;
