-- Strikes out names whose objects were deleted. One that may have been on its way stays noted for a
-- while, and is deleted again: it may arrive late.
-- KEYS: unlisted
-- ARGV: nonce seconds (that a note stays), then names
-- REPLIES: cleared
-- FLAGS: allow-oom

local function archive_cleared(k, args)
  local now = tonumber(redis.call('TIME')[1])
  for i = 3, #args do
    local noted = redis.call('HGET', k[1], args[i])
    local since = noted and tonumber(string.match(noted, '%d+$'))
    if since and since + tonumber(args[2]) <= now then redis.call('HDEL', k[1], args[i]) end
  end
  return {args[1], 'cleared'}
end
