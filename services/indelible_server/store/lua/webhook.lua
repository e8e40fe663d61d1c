-- A webhook's keys by name, and who may work on it now.
-- Shared by the webhook functions; registers nothing.

local function named_webhook(k)
  return {
    meta = k[1], claim = k[2], positions = k[3], pending = k[4], due = k[5], replays = k[6],
    finished = k[7], dead = k[8],
  }
end

-- The fence: only who holds the claim may write, however late its call comes in.
local function holds(keys, token)
  return redis.call('GET', keys.claim) == token
end

local function digits(number)
  return string.format('%.0f', number)
end
