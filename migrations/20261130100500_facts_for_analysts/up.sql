-- Facts with the rules that fired and the caller's key, a report of each run, views for BI tools, and a comment on every
-- table and column.

SET LOCAL lock_timeout = '10s';

ALTER TABLE fact_transactions
  ADD COLUMN idempotency_key text COLLATE "C",
  ADD COLUMN rules text[];

-- The facts of these days lack the new columns until `aggregate` has rebuilt them. Finds each day by one probe of the
-- primary key.
INSERT INTO fact_marks (day)
WITH RECURSIVE days AS (
  SELECT (SELECT min(business_date) FROM fact_transactions) AS day
  UNION ALL
  SELECT (SELECT min(business_date) FROM fact_transactions WHERE business_date > days.day)
  FROM days WHERE days.day IS NOT NULL)
SELECT day FROM days WHERE day IS NOT NULL;

ALTER TABLE aggregate_runs
  ADD COLUMN rows_added bigint NOT NULL DEFAULT 0,
  ADD COLUMN rows_changed bigint NOT NULL DEFAULT 0,
  ADD COLUMN rows_removed bigint NOT NULL DEFAULT 0,
  ADD COLUMN high_risk bigint NOT NULL DEFAULT 0;

-- `verify` and `risk assess` look for the dead letter of a transaction. The table is small.
CREATE INDEX dead_letters_by_event ON dead_letters (event_id) WHERE event_id IS NOT NULL;

CREATE VIEW daily_totals AS
SELECT business_date, currency, count(*) AS account_count, sum(transaction_count)::bigint AS transaction_count,
  sum(credit_count)::bigint AS credit_count, sum(debit_count)::bigint AS debit_count,
  sum(credit_sum) AS credit_sum, sum(debit_sum) AS debit_sum, sum(credit_sum) - sum(debit_sum) AS net_change,
  sum(assessed_count)::bigint AS assessed_count, max(max_risk_score) AS max_risk_score,
  sum(high_risk_count)::bigint AS high_risk_count
FROM fact_account_day
GROUP BY business_date, currency;

CREATE VIEW risk_by_rule AS
SELECT f.business_date, r.rule, f.currency, count(*) AS transaction_count, count(DISTINCT f.account_id) AS account_count,
  sum(f.amount) AS amount_sum, round(avg(f.risk_score), 1) AS average_risk_score,
  count(*) FILTER (WHERE f.risk_level = 'high') AS high_risk_count
FROM fact_transactions f CROSS JOIN LATERAL unnest(f.rules) AS r (rule)
GROUP BY f.business_date, r.rule, f.currency;

CREATE VIEW account_balances AS
SELECT a.account_id, a.currency, (a.balance * c.unit)::numeric(22, 4) AS balance,
  (a.min_balance * c.unit)::numeric(22, 4) AS min_balance, a.account_seq AS transaction_count,
  a.last_created_at AS last_transaction_at, a.opened_at
FROM accounts a
JOIN (SELECT code, ('1e-' || decimals)::numeric AS unit FROM currencies) AS c ON c.code = a.currency;

COMMENT ON VIEW daily_totals IS 'sums and counts of each UTC day and currency, as of the last run of aggregate';
COMMENT ON COLUMN daily_totals.business_date IS 'UTC date of the transactions';
COMMENT ON COLUMN daily_totals.currency IS 'ISO 4217 code; never add amounts of different currencies';
COMMENT ON COLUMN daily_totals.account_count IS 'accounts with a transaction on the day';
COMMENT ON COLUMN daily_totals.transaction_count IS 'transactions of the day';
COMMENT ON COLUMN daily_totals.credit_count IS 'credits of the day';
COMMENT ON COLUMN daily_totals.debit_count IS 'debits of the day';
COMMENT ON COLUMN daily_totals.credit_sum IS 'sum of the credits, positive';
COMMENT ON COLUMN daily_totals.debit_sum IS 'sum of the debits, positive';
COMMENT ON COLUMN daily_totals.net_change IS 'credits minus debits: the change of all balances together';
COMMENT ON COLUMN daily_totals.assessed_count IS 'transactions of the day with an assessment';
COMMENT ON COLUMN daily_totals.max_risk_score IS 'highest risk score of the day; null until a transaction is assessed';
COMMENT ON COLUMN daily_totals.high_risk_count IS 'transactions of level high';

COMMENT ON VIEW risk_by_rule IS 'transactions of each UTC day, rule that fired and currency; a transaction counts for each of its rules';
COMMENT ON COLUMN risk_by_rule.business_date IS 'UTC date of the transactions';
COMMENT ON COLUMN risk_by_rule.rule IS 'id of the live rule that fired';
COMMENT ON COLUMN risk_by_rule.currency IS 'ISO 4217 code';
COMMENT ON COLUMN risk_by_rule.transaction_count IS 'transactions on which the rule fired';
COMMENT ON COLUMN risk_by_rule.account_count IS 'accounts of these transactions';
COMMENT ON COLUMN risk_by_rule.amount_sum IS 'sum of their amounts, each positive';
COMMENT ON COLUMN risk_by_rule.average_risk_score IS 'mean of their risk scores, which other rules raise too';
COMMENT ON COLUMN risk_by_rule.high_risk_count IS 'those of level high';

COMMENT ON VIEW account_balances IS 'balance of each account now, read from the ledger and not from the facts';
COMMENT ON COLUMN account_balances.account_id IS 'id of the account';
COMMENT ON COLUMN account_balances.currency IS 'ISO 4217 code';
COMMENT ON COLUMN account_balances.balance IS 'balance in units of the currency';
COMMENT ON COLUMN account_balances.min_balance IS 'lowest balance that debits may reach; null: no limit';
COMMENT ON COLUMN account_balances.transaction_count IS 'transactions of the account';
COMMENT ON COLUMN account_balances.last_transaction_at IS 'time of the last transaction';
COMMENT ON COLUMN account_balances.opened_at IS 'time of the first posting or limit';

COMMENT ON COLUMN currencies.code IS 'ISO 4217 code';
COMMENT ON COLUMN currencies.decimals IS 'decimals of the minor unit';

COMMENT ON TABLE accounts IS 'one row for each account with its balance, which equals the sum of its transactions';
COMMENT ON COLUMN accounts.account_id IS 'id of the account, chosen by the client';
COMMENT ON COLUMN accounts.currency IS 'currency of the account, fixed by its first transaction';
COMMENT ON COLUMN accounts.balance IS 'balance in minor units';
COMMENT ON COLUMN accounts.min_balance IS 'lowest balance in minor units that debits may reach; null: no limit';
COMMENT ON COLUMN accounts.last_created_at IS 'created_at of the last transaction';
COMMENT ON COLUMN accounts.opened_at IS 'when the row was created';

COMMENT ON TABLE transactions IS 'the ledger: immutable transactions; a trigger refuses changes';
COMMENT ON COLUMN transactions.account_id IS 'account whose balance the transaction changed';
COMMENT ON COLUMN transactions.account_seq IS 'number within the account: 1, 2, 3 … without gaps';
COMMENT ON COLUMN transactions.balance_after IS 'balance of the account after the transaction, in minor units';
COMMENT ON COLUMN transactions.created_at IS 'time by the clock of the database, or of the system that the row was imported from';
COMMENT ON COLUMN transactions.reverses IS 'id of the transaction of the same account that this one reverses';
COMMENT ON COLUMN transactions.idempotency_key IS 'key of the client, unique within the account for ever';
COMMENT ON COLUMN transactions.counterparty IS 'the other party in the words of the client';
COMMENT ON COLUMN transactions.description IS 'free text of the client';
COMMENT ON COLUMN transactions.metadata IS 'flat JSON object of the client, with sorted keys';

COMMENT ON COLUMN schema_compatibility.only_row IS 'always true; keeps the table to one row';

COMMENT ON COLUMN fact_marks.day IS 'UTC date whose facts must be rebuilt';
COMMENT ON COLUMN fact_marks.marked_at IS 'time of the statement that touched the day';
COMMENT ON COLUMN fact_marks.id IS 'random; makes the key unique';

COMMENT ON TABLE outbox IS 'events that wait to be published; the relay deletes a row when the broker has acknowledged it';
COMMENT ON COLUMN outbox.lane IS 'part of the outbox: a hash of the key, 0 to 31';
COMMENT ON COLUMN outbox.id IS 'order of the events of an account within its lane';
COMMENT ON COLUMN outbox.topic IS 'topic to publish to';
COMMENT ON COLUMN outbox.key IS 'key of the record: the account id';
COMMENT ON COLUMN outbox.value IS 'value of the record: the event as JSON';
COMMENT ON COLUMN outbox.event_id IS 'id of the event; for TransactionCreated, the id of the transaction';
COMMENT ON COLUMN outbox.event_type IS 'type of the event, for example TransactionCreated.v1';
COMMENT ON COLUMN outbox.created_at IS 'when the row was written';
COMMENT ON COLUMN outbox.traceparent IS 'W3C trace context of the request';

COMMENT ON TABLE leases IS 'rights to work on a lane, a partition or the facts; the fence is the epoch';
COMMENT ON COLUMN leases.name IS 'name of the work';
COMMENT ON COLUMN leases.owner IS 'instance that holds the lease; null: released';
COMMENT ON COLUMN leases.epoch IS 'rises each time the lease is taken';
COMMENT ON COLUMN leases.expires_at IS 'end of the lease by the clock of the database';
COMMENT ON COLUMN lease_members.lease_group IS 'group whose leases are shared';
COMMENT ON COLUMN lease_members.member IS 'name of the instance';
COMMENT ON COLUMN lease_members.expires_at IS 'until when the instance counts as alive';

COMMENT ON TABLE consumer_positions IS 'how far each consumer group has handled each partition';
COMMENT ON COLUMN consumer_positions.consumer_group IS 'name of the group';
COMMENT ON COLUMN consumer_positions.topic IS 'name of the topic';
COMMENT ON COLUMN consumer_positions.partition IS 'number of the partition';
COMMENT ON COLUMN consumer_positions.next_offset IS 'offset of the next record to handle';
COMMENT ON COLUMN consumer_positions.updated_at IS 'when the position last changed';
COMMENT ON COLUMN consumer_positions.halt_reason IS 'why the partition is halted, in words';

COMMENT ON TABLE dead_letters IS 'records that were given up, with the reason';
COMMENT ON COLUMN dead_letters.id IS 'id of the dead letter';
COMMENT ON COLUMN dead_letters.consumer_group IS 'group that gave the record up';
COMMENT ON COLUMN dead_letters.topic IS 'topic of the record';
COMMENT ON COLUMN dead_letters.partition IS 'partition of the record; null for an outbox row that could not be published';
COMMENT ON COLUMN dead_letters.record_offset IS 'offset of the record; null for an outbox row that could not be published';
COMMENT ON COLUMN dead_letters.key IS 'key of the record';
COMMENT ON COLUMN dead_letters.value IS 'value of the record';
COMMENT ON COLUMN dead_letters.headers IS 'array of [name, base64 value]';
COMMENT ON COLUMN dead_letters.stage IS 'stage that failed: decode, ledger, score, process or publish';
COMMENT ON COLUMN dead_letters.reason IS 'reason as a word for filters';
COMMENT ON COLUMN dead_letters.error IS 'error as a text for people';
COMMENT ON COLUMN dead_letters.attempts IS 'attempts before the record was given up';
COMMENT ON COLUMN dead_letters.event_id IS 'id of the event, if it could be read';
COMMENT ON COLUMN dead_letters.created_at IS 'when the record was given up';

COMMENT ON TABLE dead_letter_replays IS 'one row for each retry or dismissal of a dead letter by an operator';
COMMENT ON COLUMN dead_letter_replays.id IS 'order of the retries';
COMMENT ON COLUMN dead_letter_replays.dead_letter_id IS 'the dead letter';
COMMENT ON COLUMN dead_letter_replays.replayed_by IS 'user and host of the operator';
COMMENT ON COLUMN dead_letter_replays.replayed_at IS 'when it was retried';

COMMENT ON TABLE broker_partitions IS 'PostgreSQL broker: the partitions of its topics';
COMMENT ON COLUMN broker_partitions.topic IS 'name of the topic';
COMMENT ON COLUMN broker_partitions.partition IS 'number of the partition';
COMMENT ON COLUMN broker_partitions.next_offset IS 'offset of the next record';

COMMENT ON TABLE broker_records IS 'PostgreSQL broker: the records of its topics';
COMMENT ON COLUMN broker_records.topic IS 'name of the topic';
COMMENT ON COLUMN broker_records.partition IS 'number of the partition';
COMMENT ON COLUMN broker_records.record_offset IS 'offset of the record';
COMMENT ON COLUMN broker_records.key IS 'key of the record';
COMMENT ON COLUMN broker_records.value IS 'value of the record';
COMMENT ON COLUMN broker_records.headers IS 'array of [name, base64 value]';
COMMENT ON COLUMN broker_records.created_at IS 'timestamp of the record';

COMMENT ON TABLE broker_identity IS 'the broker of this database, in at most one row';
COMMENT ON COLUMN broker_identity.is_current IS 'always true; keeps the table to one row';
COMMENT ON COLUMN broker_identity.kind IS 'kafka or postgres';
COMMENT ON COLUMN broker_identity.recorded_at IS 'when the broker was recorded';
COMMENT ON COLUMN broker_identity.recorded_by IS 'instance or operator that recorded it';

COMMENT ON TABLE broker_topics IS 'the topics of the broker with their number of partitions';
COMMENT ON COLUMN broker_topics.topic IS 'name of the topic';
COMMENT ON COLUMN broker_topics.partitions IS 'number of partitions';
COMMENT ON COLUMN broker_topics.recorded_at IS 'when the number was recorded';
COMMENT ON COLUMN broker_topics.recorded_by IS 'instance or operator that recorded it';

COMMENT ON TABLE republications IS 'one row for each run of ledger republish';
COMMENT ON COLUMN republications.id IS 'id of the run';
COMMENT ON COLUMN republications.requested_by IS 'user and host of the operator';
COMMENT ON COLUMN republications.requested_at IS 'start of the run';
COMMENT ON COLUMN republications.selected IS 'number of selected transactions';
COMMENT ON COLUMN republications.finished_at IS 'when the last event was put into the outbox';

COMMENT ON COLUMN risk_assessments.account_id IS 'account of the transaction';
COMMENT ON COLUMN risk_assessments.account_seq IS 'number of the transaction within the account';
COMMENT ON COLUMN risk_assessments.transaction_id IS 'id of the transaction';
COMMENT ON COLUMN risk_assessments.risk_score IS 'score, 0 to 100';
COMMENT ON COLUMN risk_assessments.risk_level IS 'low, medium or high';
COMMENT ON COLUMN risk_assessments.reasons IS 'array of {rule, score, reason}: the live rules that fired';
COMMENT ON COLUMN risk_assessments.shadow_reasons IS 'the same for rules in shadow mode, which do not count';
COMMENT ON COLUMN risk_assessments.ruleset IS 'version of the rules: the hash of the rule file';
COMMENT ON COLUMN risk_assessments.assessed_at IS 'time of the assessment by the clock of the database';

COMMENT ON TABLE fact_transactions IS 'one row for each transaction, for analytics; built by ledger aggregate';
COMMENT ON COLUMN fact_transactions.business_date IS 'UTC date of created_at; filter by it';
COMMENT ON COLUMN fact_transactions.transaction_id IS 'id of the transaction';
COMMENT ON COLUMN fact_transactions.account_id IS 'id of the account';
COMMENT ON COLUMN fact_transactions.account_seq IS 'number within the account: 1, 2, 3 …';
COMMENT ON COLUMN fact_transactions.created_at IS 'time of the transaction, in microseconds';
COMMENT ON COLUMN fact_transactions.hour IS 'hour of created_at in UTC, 0 to 23';
COMMENT ON COLUMN fact_transactions.currency IS 'ISO 4217 code';
COMMENT ON COLUMN fact_transactions.direction IS 'credit or debit';
COMMENT ON COLUMN fact_transactions.amount IS 'amount in units of the currency, positive';
COMMENT ON COLUMN fact_transactions.signed_amount IS 'change of the balance: negative for a debit';
COMMENT ON COLUMN fact_transactions.balance_after IS 'balance of the account after the transaction';
COMMENT ON COLUMN fact_transactions.counterparty IS 'the other party in the words of the client';
COMMENT ON COLUMN fact_transactions.description IS 'free text of the client';
COMMENT ON COLUMN fact_transactions.metadata IS 'flat JSON object of the client';
COMMENT ON COLUMN fact_transactions.reverses IS 'id of the reversed transaction';
COMMENT ON COLUMN fact_transactions.risk_score IS 'score, 0 to 100; null until assessed';
COMMENT ON COLUMN fact_transactions.risk_level IS 'low, medium or high; null until assessed';
COMMENT ON COLUMN fact_transactions.ruleset IS 'version of the rules; null until assessed';
COMMENT ON COLUMN fact_transactions.assessed_at IS 'time of the assessment; null until assessed';
COMMENT ON COLUMN fact_transactions.idempotency_key IS 'key of the client';
COMMENT ON COLUMN fact_transactions.rules IS 'ids of the live rules that fired, in the order of the rule file; null until assessed';

COMMENT ON TABLE fact_account_day IS 'one row for each account and UTC day with a transaction; built by ledger aggregate';
COMMENT ON COLUMN fact_account_day.business_date IS 'UTC date';
COMMENT ON COLUMN fact_account_day.account_id IS 'id of the account';
COMMENT ON COLUMN fact_account_day.currency IS 'ISO 4217 code';
COMMENT ON COLUMN fact_account_day.transaction_count IS 'transactions of the day';
COMMENT ON COLUMN fact_account_day.credit_count IS 'credits of the day';
COMMENT ON COLUMN fact_account_day.debit_count IS 'debits of the day';
COMMENT ON COLUMN fact_account_day.credit_sum IS 'sum of the credits, positive';
COMMENT ON COLUMN fact_account_day.debit_sum IS 'sum of the debits, positive';
COMMENT ON COLUMN fact_account_day.opening_balance IS 'balance before the first transaction of the day';
COMMENT ON COLUMN fact_account_day.closing_balance IS 'balance after the last transaction of the day';
COMMENT ON COLUMN fact_account_day.assessed_count IS 'transactions of the day with an assessment';
COMMENT ON COLUMN fact_account_day.max_risk_score IS 'highest risk score of the day; null until a transaction is assessed';
COMMENT ON COLUMN fact_account_day.high_risk_count IS 'transactions of level high';

COMMENT ON TABLE aggregate_runs IS 'one row for each run of ledger aggregate';
COMMENT ON COLUMN aggregate_runs.id IS 'order of the runs';
COMMENT ON COLUMN aggregate_runs.started_at IS 'start of the run';
COMMENT ON COLUMN aggregate_runs.finished_at IS 'end of the run; null while it runs';
COMMENT ON COLUMN aggregate_runs.mode IS 'touched, range or full';
COMMENT ON COLUMN aggregate_runs.status IS 'running, succeeded or failed';
COMMENT ON COLUMN aggregate_runs.days_rebuilt IS 'days that were rebuilt and committed';
COMMENT ON COLUMN aggregate_runs.first_day IS 'oldest of these days';
COMMENT ON COLUMN aggregate_runs.last_day IS 'newest of these days';
COMMENT ON COLUMN aggregate_runs.transactions IS 'transactions of these days';
COMMENT ON COLUMN aggregate_runs.error IS 'error of a failed run';
COMMENT ON COLUMN aggregate_runs.rows_added IS 'rows of fact_transactions that the run added';
COMMENT ON COLUMN aggregate_runs.rows_changed IS 'rows of fact_transactions that the run changed';
COMMENT ON COLUMN aggregate_runs.rows_removed IS 'rows of fact_transactions that the run removed';
COMMENT ON COLUMN aggregate_runs.high_risk IS 'transactions of level high on the rebuilt days';
