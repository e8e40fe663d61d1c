-- Queues dead letters again, oldest first. A dead letter begins with the time of its death, u64 ms.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce since_ms
-- REPLIES: replayed count | absent
-- FLAGS:

local function webhook_replay(k, args)
  local keys = named_webhook(k)
  if redis.call('EXISTS', keys.meta) == 0 then return {args[1], 'absent'} end
  local since, count = tonumber(args[2]), 0
  for _, letter in ipairs(redis.call('LRANGE', keys.dead, 0, -1)) do
    if struct.unpack('>I8', letter) >= since then
      redis.call('RPUSH', keys.replays, letter)
      redis.call('LREM', keys.dead, 1, letter)
      count = count + 1
    end
  end
  if count > 0 then redis.call('HINCRBY', keys.meta, 'revision', 1) end
  return {args[1], 'replayed', count}
end
