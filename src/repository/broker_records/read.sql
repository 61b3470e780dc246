-- name: read_broker_records
-- Not in the DSL: a window function over a bounded query.
SELECT record_offset, key, value, headers, created_at FROM (
  SELECT *, sum(coalesce(octet_length(value), 0) + coalesce(octet_length(key), 0))
    OVER (ORDER BY record_offset ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
  FROM (
    SELECT * FROM broker_records
    WHERE topic = /* topic */ $1 AND partition = /* partition */ $2 AND record_offset >= /* first offset */ $3
    ORDER BY record_offset LIMIT /* records at most */ $4) AS next) AS counted
WHERE coalesce(bytes_before, 0) < /* bytes at most */ $5 ORDER BY record_offset
