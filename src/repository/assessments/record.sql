-- name: record_assessments
-- diesel's DSL cannot write three tables in one statement.
--
-- The arrays have one element for each assessment. They are expanded in the SELECT list, since `FROM unnest(…)` would
-- first store them row by row. `IS TRUE` makes the planner look up each row in a hash table of the written ones. A join
-- would become a nested loop, because the connection has hash joins switched off.
WITH
-- The assessments of transactions that have none yet.
assessed AS (
  INSERT INTO risk_assessments (account_id, account_seq, transaction_id, risk_score, risk_level, reasons,
                                shadow_reasons, rule_errors, ruleset, assessed_at)
  SELECT unnest(/* account_ids */ $1), unnest(/* account_seqs */ $2), unnest(/* transaction_ids */ $3),
         unnest(/* risk_scores */ $4), unnest(/* risk_levels */ $5), unnest(/* reasons */ $6)::json,
         unnest(/* shadow_reasons */ $7)::json, unnest(/* rule_errors */ $16)::json, /* ruleset */ $8,
         /* assessed_at */ $9
  ON CONFLICT DO NOTHING RETURNING transaction_id, risk_level
),
-- One RiskAssessed event for each written assessment.
announced AS (
  INSERT INTO outbox (lane, topic, key, value, event_id, event_type, created_at, traceparent)
  SELECT lane, 'risk-assessments.v1', key, value, event_id, 'RiskAssessed.v1', $9, traceparent
  FROM (SELECT unnest(/* lanes */ $10) AS lane, unnest(/* keys */ $11) AS key, unnest(/* event_values */ $12) AS value,
               unnest(/* event_ids */ $13) AS event_id, unnest(/* traceparents */ $14) AS traceparent,
               unnest($3) AS transaction_id) e
  WHERE (transaction_id IN (SELECT transaction_id FROM assessed)) IS TRUE
),
-- Marks the transactions of the batch, whose facts must be updated, if an assessment was written.
marked AS (
  INSERT INTO fact_marks (day, begin_id, end_id)
  SELECT unnest(/* days */ $15), unnest(/* begin_ids */ $17), unnest(/* end_ids */ $18)
  WHERE EXISTS (SELECT FROM assessed)
)
SELECT risk_level, count(*) AS count FROM assessed GROUP BY risk_level
