-- Lists a run of the oldest versions as archived, and takes them out of the stream, in one step.
-- KEYS: meta commits segments unlisted kept
-- ARGV: nonce segment (u64 first, last, bytes ‖ name), then fields of `kept` and what they hold:
--       control commits, which whoever opens the log reads
-- REPLIES: moved | done (by another, or forgotten) | torn (it does not follow the last one) | gone
-- FLAGS: allow-oom

local function archive_segment(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  local first, last, bytes = struct.unpack('>I8I8I8', args[2])
  local oldest = redis.call('XRANGE', k[2], '-', '+', 'COUNT', 1)[1]
  if first < tonumber(m[3]) or not oldest or oldest[1] ~= string.format('%.0f-0', first) then
    return {args[1], 'done'}
  end
  local before = redis.call('ZREVRANGE', k[3], 0, 0)[1]
  local _, ended = nil, first - 1
  if before then _, ended = struct.unpack('>I8I8', before) end
  local end_id, next_id = string.format('%.0f-0', last), string.format('%.0f-0', last + 1)
  if ended ~= first - 1 or last >= tonumber(m[1])
    or not redis.call('XRANGE', k[2], end_id, end_id)[1] then
    return {args[1], 'torn'}
  end
  redis.call('ZADD', k[3], string.format('%.0f', first), args[2])
  redis.call('HDEL', k[4], name_of(args[2]))
  if #args > 2 then redis.call('HSET', k[5], unpack(args, 3)) end
  redis.call('XTRIM', k[2], 'MINID', '=', next_id)
  redis.call('HINCRBY', k[1], 'archived_bytes', string.format('%.0f', bytes))
  return {args[1], 'moved'}
end
