DROP INDEX dead_letters_once;
ALTER TABLE dead_letters DROP COLUMN leader_epoch;
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (consumer_group, topic, partition, record_offset)
  WHERE record_offset IS NOT NULL AND NOT of_earlier_log;
UPDATE schema_compatibility SET oldest_binary = '20261130100100';
