-- wrk: each request is a new transaction on one of ACCOUNTS accounts (environment; 1 is one hot account).
local accounts = tonumber(os.getenv("ACCOUNTS") or "10000")
local threads = 0
local sent = 0

function setup(thread)
  thread:set("thread", threads)
  threads = threads + 1
end

function init()
  math.randomseed(os.time() * 1000 + thread)
  prefix = math.random(1, 1000000000) .. "-" .. thread
end

-- One format call and no table per request, because the client shares the CPU with the server.
local form = "POST /transactions HTTP/1.1\r\nHost: " .. wrk.host .. ":" .. wrk.port .. "\r\nContent-Type: application/json\r\n" ..
  "Idempotency-Key: %s-%d\r\nContent-Length: %d\r\n\r\n%s"

function request()
  sent = sent + 1
  local body = string.format(
    '{"account_id":"acct-%d","amount":"%d.%02d","currency":"USD","direction":"%s"}',
    math.random(1, accounts), math.random(1, 500), math.random(0, 99), (sent % 3 == 0) and "debit" or "credit")
  return string.format(form, prefix, sent, #body, body)
end
