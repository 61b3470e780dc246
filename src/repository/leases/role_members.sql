-- name: live_members_of_roles
-- Not in the DSL: a part of a text, and the database's clock.
SELECT DISTINCT member FROM lease_members
WHERE split_part(lease_group, '/', 1) = ANY(/* roles */ $1) AND expires_at >= clock_timestamp() ORDER BY member
