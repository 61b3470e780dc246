-- name: last_outbox_id
-- Not in the DSL: it reads the state of a sequence.
SELECT last_value - (NOT is_called)::int AS last_id FROM outbox_id
