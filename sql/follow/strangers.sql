-- What: whether a table is read with partitions that its snapshot knows nothing of. Which partitions there are a query
--       learns from the moment at which it is planned, not from its snapshot, and from 12 on nobody has to wait for us to
--       attach one. What was attached and detached again between the snapshot and the look afterwards shows here alone.
-- Runs on: source, from 12 on, after a batch has read a partitioned table, while the locks of the reading are held. $1: oid.
-- Returns: strangers (how many relations are in the partition tree of this moment and not in that of the snapshot), relid.
select pg_catalog.count(*) as "strangers", $1::bigint as "relid"
from pg_catalog.pg_partition_tree($1::pg_catalog.regclass) as t
where t.parentrelid is not null
  and not exists (
    select 1 from pg_catalog.pg_inherits i where i.inhrelid = t.relid and i.inhparent = t.parentrelid)
