-- name: wait_for_disk
-- Not in the DSL: settings. `remote_apply` is the only value stronger than `on`.
SELECT set_config('synchronous_commit',
                  CASE current_setting('synchronous_commit') WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END,
                  false)
