-- name: append_broker_records
-- Not in the DSL: one statement draws the offsets and inserts the records from arrays.
WITH drawn AS (
  -- Draws the offsets. The row lock lasts until the commit, so offsets become visible in order.
  UPDATE broker_partitions
  SET next_offset = next_offset + /* count of records */ $1, bytes = bytes + /* bytes of keys and values */ $2
  WHERE topic = /* topic */ $3 AND partition = /* partition */ $4 RETURNING topic, partition, next_offset),
record AS (
  -- The records, with their positions in the arrays.
  SELECT *
  FROM unnest(/* keys */ $5, /* values */ $6, /* headers */ $7, /* timestamps */ $8)
    WITH ORDINALITY AS r (key, value, headers, created_at, position))
INSERT INTO broker_records (topic, partition, record_offset, key, value, headers, created_at)
SELECT d.topic, d.partition, d.next_offset - $1 + r.position - 1, r.key, r.value, r.headers, r.created_at
FROM drawn d CROSS JOIN record r
