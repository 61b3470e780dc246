-- name: verify_match_dead_letters
-- Not in the DSL: it fills a temporary table from arrays.
WITH found AS (
  -- Notes that the dead letters of these records were published.
  INSERT INTO verify_sent
  SELECT d.id
  FROM unnest(/* groups */ $1, /* topics */ $2, /* partitions */ $3, /* offsets */ $4)
    AS e (consumer_group, topic, partition, record_offset)
  JOIN dead_letters d USING (consumer_group, topic, partition, record_offset)
  RETURNING 1)
SELECT count(*) AS count FROM found
