-- Adds a delivery that somebody asked for, beside those of the logs.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce most delivery_id record due_ms
-- REPLIES: added | full | absent
-- FLAGS:

local function webhook_add(k, args)
  local keys = named_webhook(k)
  if redis.call('EXISTS', keys.meta) == 0 then return {args[1], 'absent'} end
  if redis.call('HLEN', keys.pending) >= tonumber(args[2]) then return {args[1], 'full'} end
  redis.call('HSET', keys.pending, args[3], args[4])
  redis.call('ZADD', keys.due, args[5], args[3])
  redis.call('HINCRBY', keys.meta, 'revision', 1)
  return {args[1], 'added'}
end
