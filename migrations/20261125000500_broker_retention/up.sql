-- Retention of the PostgreSQL broker. The size of a partition is counted as records are appended and removed, so that
-- no statement has to read the records to find it.
ALTER TABLE broker_partitions ADD COLUMN bytes bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN broker_partitions.bytes IS 'size of the keys and values of the stored records';
UPDATE broker_partitions p SET bytes = (
  SELECT coalesce(sum(coalesce(octet_length(r.key), 0) + coalesce(octet_length(r.value), 0)), 0)
  FROM broker_records r WHERE r.topic = p.topic AND r.partition = p.partition);
-- The front of each partition is deleted in small steps, every minute.
ALTER TABLE broker_records SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
