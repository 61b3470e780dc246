-- name: outbox_backlog
-- Not in the DSL: bounded counts over one range of the primary key for each lane.
WITH lane AS (
  -- The first row and the bounded count of each lane that is not empty.
  SELECT first.created_at, counted.rows
  FROM unnest(/* lanes */ $1, /* scan floors */ $2) AS l (lane, floor)
  CROSS JOIN LATERAL (
    SELECT created_at FROM outbox
    WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT 1) AS first
  CROSS JOIN LATERAL (
    SELECT count(*) AS rows FROM (
      SELECT 1 FROM outbox
      WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT /* counted of a lane at most */ $3
    ) AS bounded) AS counted)
SELECT CASE WHEN coalesce(max(rows), 0) < $3 THEN coalesce(sum(rows), 0)::bigint
       ELSE greatest(sum(rows)::bigint, (
         SELECT n_live_tup FROM pg_stat_user_tables WHERE relid = 'outbox'::regclass)) END AS rows,
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0)::float8 AS oldest_age_seconds
FROM lane
