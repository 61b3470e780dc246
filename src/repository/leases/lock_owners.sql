-- name: lock_lease_owners
-- Not in the DSL: a CTE that locks rows in name order.
WITH locked AS (
  -- Locks in name order. The clock is read after the wait for the locks.
  SELECT owner, expires_at FROM leases WHERE name = ANY(/* names */ $1) ORDER BY name FOR UPDATE)
SELECT DISTINCT owner FROM locked
WHERE owner IS NOT NULL AND expires_at >= clock_timestamp() ORDER BY owner
