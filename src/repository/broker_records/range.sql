-- name: broker_partition_range
-- Not in the DSL: a correlated subquery that reads one end of an index.
SELECT p.next_offset AS latest, coalesce(
  (SELECT r.record_offset FROM broker_records r
   WHERE r.topic = p.topic AND r.partition = p.partition ORDER BY r.record_offset LIMIT 1),
  p.next_offset) AS earliest, p.log_id
FROM broker_partitions p WHERE p.topic = /* topic */ $1 AND p.partition = /* partition */ $2
