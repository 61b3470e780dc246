-- name: lease_states
-- Not in the DSL: arithmetic on the database's clock.
SELECT name, owner, epoch,
  -- A lease without an owner expired at '-infinity'.
  CASE WHEN owner IS NOT NULL
       THEN extract(epoch FROM expires_at - clock_timestamp())::float8 END AS remaining_seconds
FROM leases WHERE name = ANY(/* names */ $1)
