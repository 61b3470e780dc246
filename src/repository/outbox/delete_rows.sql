-- name: delete_outbox_rows
-- Not in the DSL: it joins arrays as a table.
-- Reads the index once for each lane, from the first to the last id, instead of once for each row. `IS TRUE` keeps the
-- planner from turning the list into a join: as it is, the list is a hashed subplan.
DELETE FROM outbox o
USING unnest(/* lanes */ $1, /* first ids */ $2, /* last ids */ $3) AS range (lane, first, last)
WHERE o.lane = range.lane AND o.id BETWEEN range.first AND range.last
  AND ((o.lane, o.id, o.event_id) IN (
    SELECT * FROM unnest(/* lanes of the rows */ $4, /* ids */ $5, /* event ids */ $6))) IS TRUE
