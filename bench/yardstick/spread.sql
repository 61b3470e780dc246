-- The work of `POST /transactions` in SQL, with one commit each, on the tables of fastapi_service.py.
\set a random(1, 10000)
\set k random(1, 1000000000000)
begin;
with t as (
  insert into transactions(id, account_id, idempotency_key, request_hash, amount, currency, direction)
  values (gen_random_uuid(), 'acct-' || :a, :k::text, '\x00', 10.50, 'USD', 'debit') on conflict do nothing returning account_id)
insert into balances select account_id, 'USD', -10.5 from t
  on conflict (account_id, currency) do update set balance = balances.balance + excluded.balance;
insert into outbox(key, payload) values ('acct-' || :a, '{"account_id":"acct-1","amount":"10.50","currency":"USD","direction":"debit"}');
commit;
