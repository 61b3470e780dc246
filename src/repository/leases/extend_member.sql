-- name: extend_lease_member
-- Not in the DSL: arithmetic on the database's clock.
INSERT INTO lease_members (lease_group, member, expires_at)
VALUES (/* group */ $1, /* member */ $2, clock_timestamp() + /* ttl in ms */ $3 * interval '1 millisecond')
ON CONFLICT (lease_group, member) DO UPDATE SET expires_at = excluded.expires_at
RETURNING clock_timestamp() AS server_time
