-- name: verify_insert_gaps
INSERT INTO verify_gaps
SELECT * FROM unnest(/* account_ids */ $1, /* first seqs */ $2, /* last seqs */ $3)
