-- name: sequence_gaps
-- diesel's DSL cannot join arrays as a table. OFFSET 0 keeps the probes of the primary keys.
SELECT e.account_id, e.account_seq
FROM unnest(/* account_ids */ $1, /* account_seqs */ $2) AS e (account_id, account_seq)
CROSS JOIN LATERAL (
  -- The transaction before it.
  SELECT id FROM transactions t
  WHERE t.account_id = e.account_id AND t.account_seq = e.account_seq - 1 OFFSET 0
) t
WHERE NOT EXISTS (SELECT FROM risk_assessments r
                  WHERE r.account_id = e.account_id AND r.account_seq = e.account_seq - 1 OFFSET 0)
  -- A dead letter without an offset is an outbox row that the relay could not publish.
  AND NOT EXISTS (SELECT FROM dead_letters d
                  WHERE d.event_id = t.id AND (d.consumer_group = /* group */ $3 OR d.record_offset IS NULL))
