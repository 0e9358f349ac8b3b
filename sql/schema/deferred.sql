-- What: indexes, constraints, triggers and rules that the copy of some sync took away and gives back itself.
-- Runs on: target, where the ledger exists.
-- Returns: objectName, and tableName as in messages.
select o.object_name as "objectName", o.table_name as "tableName"
from replicate.deferred o
where o.restored_at is null and o.kind <> 'analyze'
