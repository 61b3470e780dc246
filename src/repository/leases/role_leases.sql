-- name: leases_of_roles
-- Not in the DSL: a part of a text.
SELECT name FROM leases WHERE split_part(name, '/', 1) = ANY(/* roles */ $1) ORDER BY name
