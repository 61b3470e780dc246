-- wrk: the balance of one of 10,000 accounts.
function init()
  math.randomseed(os.time())
end

function request()
  return wrk.format("GET", string.format("/accounts/acct-%d/balance", math.random(1, 10000)))
end
