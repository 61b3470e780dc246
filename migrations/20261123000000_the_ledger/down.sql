DROP TABLE fact_marks;
DROP TABLE transactions;
DROP TABLE accounts;
DROP TABLE currencies;
DROP FUNCTION ledger_stale_group();
DROP FUNCTION ledger_refuse_change();
