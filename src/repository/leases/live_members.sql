-- name: live_lease_members
-- Not in the DSL: a CTE that deletes and skips locked rows.
WITH expired AS (
  -- Skips rows that another member is deleting at the same time.
  SELECT lease_group, member FROM lease_members
  WHERE lease_group = /* group */ $1 AND expires_at < clock_timestamp() FOR UPDATE SKIP LOCKED),
deleted AS (
  -- Deletes the members whose time is over.
  DELETE FROM lease_members m USING expired e
  WHERE m.lease_group = e.lease_group AND m.member = e.member)
SELECT member FROM lease_members
WHERE lease_group = $1 AND expires_at >= clock_timestamp() ORDER BY member
