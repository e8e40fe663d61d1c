-- Changes fields of a webhook that is still as the caller read it; on demand all that waits to
-- be sent is due at once.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce revision due_ms (or '') then fields of meta and their values
-- REPLIES: changed | conflict | absent
-- FLAGS:

local function webhook_change(k, args)
  local keys = named_webhook(k)
  local revision = redis.call('HGET', keys.meta, 'revision')
  if not revision then return {args[1], 'absent'} end
  if revision ~= args[2] then return {args[1], 'conflict'} end
  redis.call('HINCRBY', keys.meta, 'revision', 1)
  redis.call('HSET', keys.meta, unpack(args, 4))
  if args[3] ~= '' then
    for _, id in ipairs(redis.call('ZRANGE', keys.due, 0, -1)) do
      redis.call('ZADD', keys.due, args[3], id)
    end
  end
  return {args[1], 'changed'}
end
