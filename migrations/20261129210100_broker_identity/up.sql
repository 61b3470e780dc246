-- The broker of this database, recorded by the first relay or consumer. A role with another broker refuses to start, and
-- `ledger broker switch` is the only way to change it.
CREATE TABLE broker_identity (
  -- There is one row at most.
  is_current boolean PRIMARY KEY DEFAULT true CHECK (is_current),
  generation bigint NOT NULL DEFAULT 1 CHECK (generation > 0),
  kind text NOT NULL CHECK (kind IN ('kafka', 'postgres')),
  cluster_id text NOT NULL,
  moved_from text,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  recorded_by text NOT NULL
);
COMMENT ON COLUMN broker_identity.generation IS 'rises with each switch; a relay or consumer takes leases only in the generation in which it started';
COMMENT ON COLUMN broker_identity.cluster_id IS 'id of the Kafka cluster; empty for the PostgreSQL broker';
COMMENT ON COLUMN broker_identity.moved_from IS 'the broker before, if there was one; its topics hold the events until recorded_at';

CREATE TABLE broker_topics (
  topic text COLLATE "C" PRIMARY KEY,
  partitions integer NOT NULL CHECK (partitions > 0),
  partitions_before integer,
  recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  recorded_by text NOT NULL
);
COMMENT ON COLUMN broker_topics.partitions_before IS 'the number before a switch accepted another one; keys are in the partitions of both numbers';

-- A record is dead-lettered once. In another log, the same partition and offset are another record.
ALTER TABLE dead_letters ADD COLUMN of_earlier_log boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN dead_letters.of_earlier_log IS 'partition and offset are those of an earlier log: the broker was switched, or the topic was created again';
DROP INDEX dead_letters_once;
CREATE UNIQUE INDEX dead_letters_once ON dead_letters (consumer_group, topic, partition, record_offset)
  WHERE record_offset IS NOT NULL AND NOT of_earlier_log;
