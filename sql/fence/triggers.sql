-- What: a fence's triggers on one relation. BEFORE, so that nothing else happens first; ALWAYS, so that writers under
--       session_replication_role = replica are stopped too. They are on partitioned tables and on each partition,
--       because a statement fires the triggers of the relation it names. Sessions that show the pass go through; what is
--       written here is its hash, which does not tell it.
-- Runs on: source, or target: the side to be fenced, under a lock on the relation.
-- Returns: nothing.
create trigger aaa_replicate_fence_{{id}}
  before insert or update or delete on {{table}}
  for each statement when ({{is_stranger}}) execute procedure replicate.fence_{{id}}();
create trigger aaa_replicate_fence_{{id}}_truncate
  before truncate on {{table}}
  for each statement when ({{is_stranger}}) execute procedure replicate.fence_{{id}}();
alter table only {{table}} enable always trigger aaa_replicate_fence_{{id}};
alter table only {{table}} enable always trigger aaa_replicate_fence_{{id}}_truncate;
