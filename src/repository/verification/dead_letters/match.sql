-- name: verify_match_dead_letters
-- Not in the DSL: it fills a temporary table from an array.
WITH found AS (
  -- Notes that these dead letters were published.
  INSERT INTO verify_sent
  SELECT d.id
  FROM unnest(/* ids */ $1) AS e (id)
  JOIN dead_letters d USING (id)
  RETURNING 1)
SELECT count(*) AS count FROM found
