-- name: dead_letter_records
-- diesel's DSL cannot write two tables in one statement.
--
-- The arrays have one element for each record. `IS TRUE` makes the planner look up each row in a hash table of the written
-- ones. A join would become a nested loop, because the connection has hash joins switched off.
WITH
-- The records that are not dead-lettered yet.
inserted AS (
  INSERT INTO dead_letters (id, consumer_group, topic, partition, record_offset, key, value, headers, stage, reason, error,
                            attempts, event_id, leader_epoch)
  SELECT unnest(/* ids */ $1), /* consumer_group */ $2, /* topic */ $3, /* partition */ $4, unnest(/* offsets */ $5),
         unnest(/* keys */ $6), unnest(/* values */ $7), unnest(/* headers */ $8), unnest(/* stages */ $9),
         unnest(/* reasons */ $10), unnest(/* errors */ $11), unnest(/* attempts */ $12), unnest(/* event_ids */ $13),
         unnest(/* leader_epochs */ $16)
  ON CONFLICT (consumer_group, topic, partition, record_offset, leader_epoch)
    WHERE record_offset IS NOT NULL AND NOT of_earlier_log DO NOTHING
  RETURNING id
)
-- One row of the dead-letter topic for each of them.
INSERT INTO outbox (lane, topic, key, value, event_id, event_type, headers)
SELECT lane, 'transactions.v1.dlq', key, value, id, 'DeadLetter', headers
FROM (SELECT unnest(/* lanes */ $14) AS lane, unnest($6) AS key, unnest($7) AS value, unnest($1) AS id,
             unnest(/* outgoing_headers */ $15) AS headers) e
WHERE (id IN (SELECT id FROM inserted)) IS TRUE
