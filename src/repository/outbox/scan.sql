-- name: scan_outbox
-- Not in the DSL: one range of the primary key for each lane.
SELECT o.* FROM unnest(/* lanes */ $1, /* scan floors */ $2) AS l (lane, floor) CROSS JOIN LATERAL (
  SELECT lane, id, topic, key, value, event_id, event_type, created_at, traceparent, headers
  FROM outbox WHERE outbox.lane = l.lane AND outbox.id >= l.floor ORDER BY id LIMIT /* rows of a lane at most */ $3) AS o
LIMIT /* rows at most */ $4
