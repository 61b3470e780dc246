-- wrk: pages of history. PAGE is account, account-range, ledger or ledger-range; FROM and TO bound the ranges. Pages
-- of an account are short, so that an account of a young ledger fills them too.
local kind = os.getenv("PAGE") or "account"
local range = string.format("&from=%s&to=%s", os.getenv("FROM") or "", os.getenv("TO") or "")

function init()
  math.randomseed(os.time())
end

function request()
  local path = "/transactions?limit=50"
  if string.find(kind, "account") then
    path = "/transactions?limit=5&account_id=acct-" .. math.random(1, 10000)
  end
  if string.find(kind, "range") then
    path = path .. range
  end
  return wrk.format("GET", path)
end
