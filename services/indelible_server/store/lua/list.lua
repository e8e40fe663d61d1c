-- Puts a log into the listings of its database and its group, or takes it out.
-- KEYS: listing group_listing group_version channel
-- ARGV: nonce add|remove member
-- REPLIES: changed version | unchanged
-- FLAGS:

local function list(k, args)
  local changed
  if args[2] == 'add' then
    redis.call('ZADD', k[1], 0, args[3])
    changed = redis.call('ZADD', k[2], 0, args[3])
  else
    redis.call('ZREM', k[1], args[3])
    changed = redis.call('ZREM', k[2], args[3])
  end
  if changed == 0 then
    redis.call('INCRBY', k[3], 0)  -- a WAIT after it covers what made it so
    return {args[1], 'unchanged'}
  end
  local version = redis.call('INCR', k[3])
  redis.call('SPUBLISH', k[4], string.format('%.0f', version))
  return {args[1], 'changed', version}
end
