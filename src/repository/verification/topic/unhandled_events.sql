-- name: verify_unhandled_events
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('account_id', e.account_id, 'account_seq', e.account_seq, 'transaction_id', e.event_id,
                    'partition', e.partition, 'offset', e.record_offset)::text AS ids,
  'partition ' || e.partition || ' offset ' || e.record_offset || ' (transaction ' || e.account_seq
    || ' of account ' || e.account_id || ') was passed without an assessment or a dead letter' AS example
FROM unnest(/* partitions */ $1, /* offsets */ $2, /* account_ids */ $3, /* account_seqs */ $4, /* event_ids */ $5,
            /* leader_epochs */ $7)
  AS e (partition, record_offset, account_id, account_seq, event_id, leader_epoch)
-- OFFSET 0 keeps one probe of an index for each event. The dead letters of an event are looked for twice, because no
-- index serves both its id and its offset.
WHERE NOT EXISTS (SELECT FROM risk_assessments r
                  WHERE r.account_id = e.account_id AND r.account_seq = e.account_seq OFFSET 0)
  AND NOT EXISTS (SELECT FROM dead_letters d
                  WHERE d.event_id = e.event_id AND d.consumer_group = /* group */ $6
                    AND d.topic = 'transactions.v1' OFFSET 0)
  AND NOT EXISTS (SELECT FROM dead_letters d
                  WHERE d.consumer_group = $6 AND d.topic = 'transactions.v1' AND d.partition = e.partition
                    AND d.record_offset = e.record_offset AND d.leader_epoch IS NOT DISTINCT FROM e.leader_epoch
                    AND NOT d.of_earlier_log OFFSET 0)
ORDER BY e.partition, e.record_offset LIMIT pg_temp.verify_examples()
