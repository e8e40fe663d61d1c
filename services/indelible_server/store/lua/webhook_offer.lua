-- Stores a delivery before its first attempt; one that is replayed leaves its queue.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce token delivery_id record due_ms replayed (1 or 0)
-- REPLIES: offered revision | lost
-- FLAGS:

local function webhook_offer(k, args)
  local keys = named_webhook(k)
  if not holds(keys, args[2]) then return {args[1], 'lost'} end
  redis.call('HSET', keys.pending, args[3], args[4])
  redis.call('ZADD', keys.due, args[5], args[3])
  if args[6] == '1' then redis.call('LPOP', keys.replays) end
  return {args[1], 'offered', redis.call('HGET', keys.meta, 'revision')}
end
