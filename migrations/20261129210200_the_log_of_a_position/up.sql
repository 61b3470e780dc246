-- A position belongs to one log. A topic that is deleted and created again, or a log that lost its end, is another log.

ALTER TABLE broker_partitions ADD COLUMN log_id uuid NOT NULL DEFAULT gen_random_uuid();
COMMENT ON COLUMN broker_partitions.log_id IS 'a partition that is deleted and created again has another id';

ALTER TABLE consumer_positions
  ADD COLUMN log_id uuid,
  ADD COLUMN leader_epoch integer,
  ADD COLUMN halted_at timestamptz,
  ADD COLUMN halt_reason text,
  ADD CONSTRAINT consumer_positions_halt CHECK ((halted_at IS NULL) = (halt_reason IS NULL));
COMMENT ON COLUMN consumer_positions.log_id IS 'the log that next_offset belongs to: the id of Kafka''s topic, or broker_partitions.log_id; null: the next owner takes the id that it finds';
COMMENT ON COLUMN consumer_positions.leader_epoch IS 'Kafka: the leader epoch of the record before next_offset; null: not known';
COMMENT ON COLUMN consumer_positions.halted_at IS 'the log does not continue at next_offset; only an operator ends this, with ledger consumers reset';
