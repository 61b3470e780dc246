-- name: remove_front_of_broker_partition
-- Not in the DSL: one statement finds, deletes and counts.
WITH held AS (
  -- By how many bytes the partition is too large (null: no limit), and the first offset that a consumer group needs.
  SELECT p.bytes - /* bytes at most */ $1 AS excess, coalesce((
    SELECT min(c.next_offset) FROM consumer_positions c
    WHERE c.topic = p.topic AND c.partition = p.partition), p.next_offset) AS needed
  FROM broker_partitions p WHERE p.topic = /* topic */ $2 AND p.partition = /* partition */ $3),
front AS MATERIALIZED (
  -- The first records that no group needs, with the running sum of their sizes.
  SELECT record_offset, created_at, sum(size) OVER (ORDER BY record_offset) AS bytes_upto FROM (
    SELECT record_offset, created_at, coalesce(octet_length(key), 0) + coalesce(octet_length(value), 0) AS size
    FROM broker_records
    WHERE topic = $2 AND partition = $3 AND record_offset < (SELECT needed FROM held)
    ORDER BY record_offset LIMIT /* records at most */ $4) AS first),
cut AS (
  -- The offset of the first record that is neither too old nor within the excess, or else the offset after the last.
  SELECT coalesce(
    min(record_offset) FILTER (
      WHERE NOT coalesce(created_at < clock_timestamp() - make_interval(secs => /* age at most, in s */ $5), false)
        AND NOT coalesce(bytes_upto <= (SELECT excess FROM held), false)),
    max(record_offset) + 1) AS first_kept FROM front),
removed AS (
  -- Deletes the records before it.
  DELETE FROM broker_records r
  WHERE r.topic = $2 AND r.partition = $3 AND r.record_offset < (SELECT first_kept FROM cut)
  RETURNING coalesce(octet_length(r.key), 0) + coalesce(octet_length(r.value), 0) AS size),
counted AS (SELECT count(*) AS count, coalesce(sum(size), 0)::bigint AS bytes FROM removed),
shrunk AS (
  -- Updates the partition's byte count.
  UPDATE broker_partitions p SET bytes = p.bytes - c.bytes FROM counted c
  WHERE p.topic = $2 AND p.partition = $3 AND c.count > 0)
SELECT count FROM counted
