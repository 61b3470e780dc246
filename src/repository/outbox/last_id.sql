-- name: last_outbox_id
SELECT last_value - (NOT is_called)::int AS last_id FROM outbox_id
