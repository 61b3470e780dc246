-- name: take_leases
-- Not in the DSL: a CTE that skips locked rows, and arithmetic on the database's clock.
WITH free AS (
  -- Skips locked leases: they are being taken, or a database transaction of their owner is at work.
  SELECT name FROM leases
  WHERE name = ANY(/* names */ $1) AND (owner IS NULL OR expires_at < clock_timestamp())
    -- Waits for a switch of the broker, and finds nothing after it: the caller works with the broker before it.
    AND (/* broker generation */ $5 IS NULL OR EXISTS (SELECT FROM broker_identity WHERE generation = $5 FOR SHARE))
  ORDER BY name LIMIT /* count */ $2 FOR UPDATE SKIP LOCKED)
UPDATE leases l
SET owner = /* owner */ $3, epoch = l.epoch + 1,
  expires_at = clock_timestamp() + /* ttl in ms */ $4 * interval '1 millisecond'
FROM free WHERE l.name = free.name
RETURNING l.name, l.epoch, extract(epoch FROM l.expires_at - clock_timestamp())::float8 AS remaining_seconds
