-- Records what came of an attempt. The end of a delivery and the move of its log's position
-- are one step: neither can be without the other.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce token delivery_id
--       pending (its record, if it is tried again at:) due_ms, else ''
--       finished (its summary, once it is over) most_finished, else ''
--       dead (its record, if it may be replayed) most_dead, else ''
--       log_id, else '' position ('' to let go of the log)
--       release (1: the claim is given up with it)
--       then fields of meta and their values
-- REPLIES: settled revision moves letters_dropped | lost
-- FLAGS:

local function webhook_settle(k, args)
  local keys = named_webhook(k)
  if not holds(keys, args[2]) then return {args[1], 'lost'} end
  local dropped = 0
  if args[4] ~= '' then
    redis.call('HSET', keys.pending, args[3], args[4])
    redis.call('ZADD', keys.due, args[5], args[3])
  else
    redis.call('HDEL', keys.pending, args[3])
    redis.call('ZREM', keys.due, args[3])
    redis.call('HINCRBY', keys.meta, 'finished', 1)
    redis.call('LPUSH', keys.finished, args[6])
    redis.call('LTRIM', keys.finished, 0, tonumber(args[7]) - 1)
    if args[8] ~= '' then
      local count = redis.call('RPUSH', keys.dead, args[8])
      dropped = math.max(0, count - tonumber(args[9]))
      redis.call('LTRIM', keys.dead, -tonumber(args[9]), -1)
    end
  end
  if args[10] ~= '' then
    if args[11] == '' then
      redis.call('HDEL', keys.positions, args[10])
    else
      redis.call('HSET', keys.positions, args[10], args[11])
    end
    redis.call('HINCRBY', keys.meta, 'moves', 1)
  end
  redis.call('HSET', keys.meta, unpack(args, 13))
  if args[12] == '1' then redis.call('DEL', keys.claim) end
  local told = redis.call('HMGET', keys.meta, 'revision', 'moves')
  return {args[1], 'settled', told[1], told[2], dropped}
end
