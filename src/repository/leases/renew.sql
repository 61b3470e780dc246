-- name: renew_leases
-- Not in the DSL: a CTE that skips locked rows, and arithmetic on the database's clock.
WITH mine AS (
  -- Skips rows that another database transaction of the owner has locked, so that renewing never waits for a lock.
  SELECT name FROM leases WHERE owner = /* owner */ $1 AND name = ANY(/* names */ $2) FOR UPDATE SKIP LOCKED),
renewed AS (
  -- Extends the locked leases.
  UPDATE leases l SET expires_at = clock_timestamp() + /* ttl in ms */ $3 * interval '1 millisecond'
  FROM mine WHERE l.name = mine.name RETURNING l.name, l.expires_at)
SELECT l.name, l.epoch,
  extract(epoch FROM coalesce(r.expires_at, l.expires_at) - clock_timestamp())::float8 AS remaining_seconds
FROM leases l LEFT JOIN renewed r ON r.name = l.name
WHERE l.owner = $1 AND l.name = ANY($2) ORDER BY l.name
