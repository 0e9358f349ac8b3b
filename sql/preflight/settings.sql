-- What: settings of a server that make a load slow, or a sync dear.
-- Runs on: source and target.
-- Returns: one row; sizes in bytes, tempFileBytes -1 where it has no limit, snapshotMinutes -1 or null where snapshots
--          do not grow too old.
select pg_catalog.pg_size_bytes(pg_catalog.current_setting('max_wal_size'))::float8 as "maxWalBytes",
       pg_catalog.pg_size_bytes(pg_catalog.current_setting('maintenance_work_mem'))::float8 as "maintenanceBytes",
       case pg_catalog.current_setting('temp_file_limit') when '-1' then -1
         else pg_catalog.pg_size_bytes(pg_catalog.current_setting('temp_file_limit')) end::float8 as "tempFileBytes",
       pg_catalog.current_setting('autovacuum')::boolean and pg_catalog.current_setting('track_counts')::boolean as "vacuums",
       pg_catalog.current_setting('synchronous_standby_names') as "standbys",
       pg_catalog.current_setting('synchronous_commit') as "commit",
       (select s.setting::int from pg_catalog.pg_settings s where s.name = 'old_snapshot_threshold') as "snapshotMinutes"
