-- name: outbox_id_below_floors
-- Not in the DSL: one range of the primary key for each lane.
SELECT o.id FROM unnest(/* lanes */ $1, /* scan floors */ $2) AS l (lane, floor) CROSS JOIN LATERAL (
  SELECT id FROM outbox WHERE outbox.lane = l.lane AND outbox.id < l.floor ORDER BY id LIMIT 1) AS o
LIMIT 1
