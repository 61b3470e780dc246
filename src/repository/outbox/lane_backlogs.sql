-- name: outbox_lane_backlogs
-- Not in the DSL: bounded counts over one range of the primary key for each lane.
SELECT l.lane, counted.rows, first.oldest_age_seconds, first.topic
FROM unnest(/* lanes */ $1) AS l (lane)
LEFT JOIN LATERAL (
  SELECT topic, extract(epoch FROM clock_timestamp() - created_at)::float8 AS oldest_age_seconds
  FROM outbox WHERE outbox.lane = l.lane ORDER BY id LIMIT 1) AS first ON true
CROSS JOIN LATERAL (
  SELECT count(*) AS rows FROM (
    SELECT 1 FROM outbox WHERE outbox.lane = l.lane ORDER BY id LIMIT /* counted of a lane at most */ $2
  ) AS bounded) AS counted
ORDER BY l.lane
