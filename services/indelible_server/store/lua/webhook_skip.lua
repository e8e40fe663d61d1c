-- Moves the position of a log of which there is nothing to tell.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce token log_id position
-- REPLIES: skipped revision moves | lost
-- FLAGS:

local function webhook_skip(k, args)
  local keys = named_webhook(k)
  if not holds(keys, args[2]) then return {args[1], 'lost'} end
  redis.call('HSET', keys.positions, args[3], args[4])
  local moves = redis.call('HINCRBY', keys.meta, 'moves', 1)
  return {args[1], 'skipped', redis.call('HGET', keys.meta, 'revision'), digits(moves)}
end
