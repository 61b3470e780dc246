ALTER TABLE fact_account_day DROP COLUMN first_account_seq, DROP COLUMN last_account_seq;
