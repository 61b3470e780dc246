-- name: release_leases
-- Not in the DSL: a CTE that locks rows in name order.
WITH mine AS (
  -- Locks in name order.
  SELECT name FROM leases WHERE owner = /* owner */ $1 AND name = ANY(/* names */ $2) ORDER BY name FOR UPDATE)
UPDATE leases l SET owner = NULL, expires_at = '-infinity' FROM mine WHERE l.name = mine.name
