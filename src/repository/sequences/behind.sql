-- name: sequences_behind
-- Not in the DSL: it reads the state of sequences.
-- The snapshot of the statement is older than the states that it reads, so a row that is written meanwhile makes no
-- difference.
SELECT sequence, last_id, highest_id
FROM (
  SELECT 'outbox_id' AS sequence, last_id, (
    -- One range of the primary key for each lane, which is empty unless the sequence is behind.
    SELECT max(above.id) FROM generate_series(0, 31) AS l (lane) CROSS JOIN LATERAL (
      SELECT id FROM outbox WHERE outbox.lane = l.lane AND outbox.id > last_id ORDER BY id DESC LIMIT 1) AS above
  ) AS highest_id
  FROM (SELECT last_value - (NOT is_called)::int AS last_id FROM outbox_id) AS state
  UNION ALL
  SELECT 'aggregate_runs_id_seq', last_value - (NOT is_called)::int, (SELECT max(id) FROM aggregate_runs)
  FROM aggregate_runs_id_seq
  UNION ALL
  SELECT 'dead_letter_replays_id_seq', last_value - (NOT is_called)::int, (SELECT max(id) FROM dead_letter_replays)
  FROM dead_letter_replays_id_seq
) AS compared
WHERE highest_id > last_id
ORDER BY sequence
