ALTER TABLE consumer_positions
  DROP COLUMN halt_reason, DROP COLUMN halted_at, DROP COLUMN leader_epoch, DROP COLUMN log_id;
ALTER TABLE broker_partitions DROP COLUMN log_id;
