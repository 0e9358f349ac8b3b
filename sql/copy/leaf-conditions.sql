-- What: the condition that a partition's rows have to meet, with those of the partitioned tables above it.
-- Runs on: source and target. $1: oid[] of leaf partitions.
-- Returns: oid, condition. Hash partitions name an oid in it, so theirs never agree between two databases; that
--          is wanted, because the hash of an enum does not agree either.
select c.oid::bigint::float8 as "oid", pg_catalog.pg_get_partition_constraintdef(c.oid) as "condition"
from pg_catalog.pg_class c
where c.oid = any ($1::oid[])
