DROP TABLE broker_records;
DROP TABLE broker_partitions;
DROP TABLE dead_letter_replays;
DROP TABLE dead_letters;
DROP TABLE consumer_positions;
DROP TABLE lease_members;
DROP TABLE leases;
DROP TABLE outbox;
