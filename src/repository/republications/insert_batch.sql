-- name: republish_batch
-- Not in the DSL: one statement inserts arrays and updates the audit.
WITH queued AS (
  -- outbox.id is drawn in the order of the arrays.
  INSERT INTO outbox (lane, topic, key, value, event_id, event_type, headers)
  SELECT unnest(/* lanes */ $1), 'transactions.v1', unnest(/* keys */ $2), unnest(/* values */ $3),
         unnest(/* event_ids */ $4), 'TransactionCreated.v1', unnest(/* headers */ $5)
)
UPDATE republications
SET republished = republished + /* events */ $7,
    finished_at = CASE WHEN republished + $7 >= selected THEN clock_timestamp() END
WHERE id = /* run */ $6
