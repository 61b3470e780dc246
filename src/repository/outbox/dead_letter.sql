-- name: dead_letter_outbox_row
-- Not in the DSL: one statement deletes a row and inserts it elsewhere.
WITH taken AS (
  -- Deletes the row, if it is still present and still the same event.
  DELETE FROM outbox WHERE lane = /* lane */ $1 AND id = /* id */ $2 AND event_id = /* event id */ $3
  RETURNING topic, key, value, event_id)
INSERT INTO dead_letters (id, consumer_group, topic, partition, key, value, headers, stage, reason, error,
  attempts, event_id)
SELECT /* id of the dead letter */ $4, 'relay', topic, /* partition */ $5, key, value, /* headers */ $6, 'publish',
  /* reason */ $7, /* error */ $8, 1, event_id
FROM taken
