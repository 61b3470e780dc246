-- name: hold_leases
-- Not in the DSL: a CTE that locks rows in name order, joined with the leases of the caller.
WITH mine AS (
  -- Locks, in name order, the leases whose owner and epoch are still those of the caller.
  SELECT l.name, m.ttl_ms
  FROM unnest(/* names */ $1, /* owners */ $2, /* epochs */ $3, /* ttls in ms */ $4) AS m (name, owner, epoch, ttl_ms)
  JOIN leases l ON l.name = m.name AND l.owner = m.owner AND l.epoch = m.epoch
  ORDER BY l.name FOR UPDATE OF l)
UPDATE leases l
SET expires_at = greatest(l.expires_at, clock_timestamp() + mine.ttl_ms * interval '1 millisecond')
FROM mine WHERE l.name = mine.name RETURNING l.name
