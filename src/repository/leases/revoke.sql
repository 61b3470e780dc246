-- name: revoke_leases
-- Not in the DSL: a CTE that locks rows in name order.
WITH held AS (
  -- Locks in name order.
  SELECT name, owner, expires_at FROM leases WHERE name = ANY(/* names */ $1) ORDER BY name FOR UPDATE)
UPDATE leases l SET owner = NULL, epoch = l.epoch + 1, expires_at = '-infinity'
FROM held WHERE l.name = held.name
RETURNING l.name, CASE WHEN held.expires_at >= clock_timestamp() THEN held.owner END AS owner
