-- name: broker_in_flight
-- Not in the DSL: it compares whole tables.
SELECT (SELECT count(*) FROM outbox) AS outbox_rows,
       (SELECT count(*) FROM consumer_positions) AS positions,
       -- The events that only the broker has: published, but neither assessed nor dead-lettered.
       (SELECT count(*) FROM transactions t
        WHERE NOT EXISTS (SELECT FROM risk_assessments r
                          WHERE r.account_id = t.account_id AND r.account_seq = t.account_seq)
          AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.event_id = t.id)
          AND NOT EXISTS (SELECT FROM outbox o WHERE o.event_id = t.id AND o.topic = 'transactions.v1')) AS unassessed
