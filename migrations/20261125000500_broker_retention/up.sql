-- The PostgreSQL broker forgets: how much a partition holds is counted as it comes and goes, so that nobody has to read
-- it to find out.
ALTER TABLE broker_partitions ADD COLUMN bytes bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN broker_partitions.bytes IS 'of the keys and values of the records that are there';
UPDATE broker_partitions p SET bytes = (
  SELECT coalesce(sum(coalesce(octet_length(r.key), 0) + coalesce(octet_length(r.value), 0)), 0)
  FROM broker_records r WHERE r.topic = p.topic AND r.partition = p.partition);
-- Its front is deleted a little every minute.
ALTER TABLE broker_records SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
