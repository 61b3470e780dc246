-- name: advance_position
-- Not in the DSL: diesel prepares a typed UPDATE again at each use.
UPDATE consumer_positions
SET next_offset = /* to */ $5, attempts = 0, interrupted = /* interrupted */ $6, leader_epoch = /* leader_epoch */ $7,
    updated_at = clock_timestamp()
WHERE consumer_group = /* consumer_group */ $1 AND topic = /* topic */ $2 AND partition = /* partition */ $3
  AND next_offset = /* from */ $4 AND halted_at IS NULL
