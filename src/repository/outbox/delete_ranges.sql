-- name: delete_outbox_ranges
-- Not in the DSL: it joins arrays as a table.
DELETE FROM outbox o
USING unnest(/* lanes */ $1, /* first ids */ $2, /* last ids */ $3) AS range (lane, first, last)
WHERE o.lane = range.lane AND o.id BETWEEN range.first AND range.last
