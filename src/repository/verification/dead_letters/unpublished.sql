-- name: verify_unpublished_dead_letters
-- Not in the DSL: it compares whole tables.
SELECT count(*) OVER () AS total,
  json_build_object('dead_letter_id', d.id, 'topic', d.topic, 'partition', d.partition, 'offset', d.record_offset)::text AS ids,
  'dead letter ' || d.id || ' (' || d.topic || '/' || d.partition || ' offset ' || d.record_offset
    || ') is neither in the outbox nor in the dead-letter topic' AS example
FROM verify_dead_letters d
WHERE d.record_offset IS NOT NULL
  AND NOT EXISTS (SELECT FROM verify_outbox o WHERE o.event_id = d.id)
  AND NOT EXISTS (SELECT FROM verify_sent s WHERE s.id = d.id)
ORDER BY d.id LIMIT pg_temp.verify_examples()
