-- Prolongs a claim, or gives it up with a time of 0.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce token ttl_ms
-- REPLIES: held | lost
-- FLAGS:

local function webhook_renew(k, args)
  local keys = named_webhook(k)
  if not holds(keys, args[2]) then return {args[1], 'lost'} end
  if args[3] == '0' then
    redis.call('DEL', keys.claim)
  else
    redis.call('PEXPIRE', keys.claim, args[3])
  end
  return {args[1], 'held'}
end
