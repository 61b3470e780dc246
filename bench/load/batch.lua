-- wrk: each request is a batch of 1,000 new transactions spread over 10,000 accounts.
local threads = 0
local sent = 0

function setup(thread)
  thread:set("thread", threads)
  threads = threads + 1
end

function init()
  math.randomseed(os.time() * 1000 + thread)
  seed = math.random(1, 1000000000)
end

function request()
  local items = {}
  for n = 1, 1000 do
    sent = sent + 1
    items[n] = string.format(
      '{"idempotency_key":"%d-%d-%d","account_id":"acct-%d","amount":"%d.%02d","currency":"USD","direction":"credit"}',
      seed, thread, sent, math.random(1, 10000), math.random(1, 500), math.random(0, 99))
  end
  local body = '{"transactions":[' .. table.concat(items, ",") .. "]}"
  return wrk.format("POST", "/transactions/batch", {["content-type"] = "application/json"}, body)
end
