-- What: pins the settings of one of our sessions. Settings that this version does not have are left out. In any session but
--       the one that is meant it changes nothing: a pool may have given us one that others will use after us.
-- Runs on: source and target, right after connecting. Holes: pid of the session that is meant; lock_timeout in milliseconds;
--          max_parallel_workers_per_gather, or null.
-- Returns: one row per setting.
-- Runs under whatever search path the session began with, so operators are qualified too.
select pg_catalog.set_config(s.name, w.value, false)
from (values
  ('search_path', 'pg_catalog'),
  -- Bytes that nobody knows the encoding of go through as they are.
  ('client_encoding', case when pg_catalog.current_setting('server_encoding') operator(pg_catalog.=) 'SQL_ASCII'::pg_catalog.text
    then 'SQL_ASCII' else 'UTF8' end),
  ('DateStyle', 'ISO, MDY'),
  ('IntervalStyle', 'postgres'),
  ('TimeZone', 'UTC'),
  ('extra_float_digits', '3'),
  ('bytea_output', 'hex'),
  ('lc_monetary', 'C'),
  ('array_nulls', 'on'),
  ('xmlbinary', 'base64'),
  ('xmloption', 'content'),
  ('quote_all_identifiers', 'off'),
  ('standard_conforming_strings', 'on'),
  ('synchronize_seqscans', 'off'),
  ('default_transaction_isolation', 'read committed'),
  ('default_transaction_read_only', 'off'),
  ('default_transaction_deferrable', 'off'),
  ('statement_timeout', '0'),
  ('idle_in_transaction_session_timeout', '0'),
  ('idle_session_timeout', '0'),
  ('transaction_timeout', '0'),
  -- A machine of ours that is gone, and a network that is silent, are noticed in 25 seconds instead of two hours, so
  -- that what the session holds is free again. On Unix sockets these mean nothing.
  ('tcp_keepalives_idle', '10'),
  ('tcp_keepalives_interval', '5'),
  ('tcp_keepalives_count', '3'),
  -- What one side has answered, the other builds on: it has to survive a crash. Other levels are the owner's choice.
  ('synchronous_commit', case when pg_catalog.current_setting('synchronous_commit') operator(pg_catalog.=) 'off'::pg_catalog.text
    then 'on' else pg_catalog.current_setting('synchronous_commit') end),
  ('lock_timeout', {{lock_timeout}}),
  -- Rows that a policy hides are an error, on either side, and not rows that are not there.
  ('row_security', 'off'),
  ('max_parallel_workers_per_gather', {{max_parallel_workers_per_gather}})
) as w (name, value)
join pg_catalog.pg_settings s on pg_catalog.lower(s.name) operator(pg_catalog.=) pg_catalog.lower(w.name)
where w.value is not null and pg_catalog.pg_backend_pid() operator(pg_catalog.=) {{pid}}
