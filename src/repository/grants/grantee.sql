-- name: grantee
-- Not in the DSL: it reads the catalog. The names are quoted, because GRANT takes no binds.
SELECT quote_ident(role.rolname) AS name,
       coalesce(pg_has_role(role.oid, versions.relowner, 'USAGE'), false) AS is_owner,
       pg_get_userbyid(versions.relowner)::text AS owner,
       quote_ident(current_schema()::text) AS schema
FROM pg_class versions LEFT JOIN pg_roles role ON role.rolname = /* role */ $1
WHERE versions.oid = '__diesel_schema_migrations'::regclass
