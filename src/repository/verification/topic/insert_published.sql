-- name: verify_insert_published
INSERT INTO verify_published
SELECT * FROM unnest(/* account_ids */ $1, /* first seqs */ $2, /* next seqs */ $3)
