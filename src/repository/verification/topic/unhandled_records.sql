-- name: verify_unhandled_records
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total, json_build_object('partition', e.partition, 'offset', e.record_offset)::text AS ids,
  'partition ' || e.partition || ' offset ' || e.record_offset
    || ' cannot be handled and was passed without a dead letter' AS example
FROM (SELECT /* partition */ $1 AS partition, unnest(/* offsets */ $2) AS record_offset,
             unnest(/* leader_epochs */ $4) AS leader_epoch) AS e
WHERE NOT EXISTS (SELECT FROM dead_letters d
                  WHERE d.consumer_group = /* group */ $3 AND d.topic = 'transactions.v1'
                    AND d.partition = e.partition AND d.record_offset = e.record_offset
                    AND d.leader_epoch IS NOT DISTINCT FROM e.leader_epoch AND NOT d.of_earlier_log)
ORDER BY e.record_offset LIMIT pg_temp.verify_examples()
