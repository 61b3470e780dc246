-- A Kafka log that lost its end uses offsets again. The leader epoch tells the records at one offset apart.
ALTER TABLE dead_letters ADD COLUMN leader_epoch integer;
COMMENT ON COLUMN dead_letters.leader_epoch IS 'leader epoch of the record (Kafka only); after a lost tail, the same offset holds another record with a higher one';
DROP INDEX dead_letters_once;
CREATE UNIQUE INDEX dead_letters_once
  ON dead_letters (consumer_group, topic, partition, record_offset, leader_epoch) NULLS NOT DISTINCT
  WHERE record_offset IS NOT NULL AND NOT of_earlier_log;
-- Older binaries name the index by its columns.
UPDATE schema_compatibility SET oldest_binary = '20261130100300';
