-- Unlists the oldest segment, or lists in its place what of it can still be read; keeps the headers.
-- KEYS: meta segments unlisted kept
-- ARGV: nonce segment rest (the segment that begins with the first version, or '') growth (of the
--       stored bytes), then fields of `kept` and what they hold
-- REPLIES: trimmed | done (by another) | early (more of it can be read than `rest` holds) | gone
-- FLAGS:

local function forget_segment(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  local first, last, bytes = struct.unpack('>I8I8I8', args[2])
  local floor, rest_first, rest_last, rest_bytes = tonumber(m[3]), last + 1, last, 0
  if not redis.call('ZSCORE', k[2], args[2]) then return {args[1], 'done'} end
  if args[3] ~= '' then
    rest_first, rest_last, rest_bytes = struct.unpack('>I8I8I8', args[3])
    if rest_first ~= floor or rest_last ~= last then return {args[1], 'done'} end
  end
  if rest_first > floor then return {args[1], 'early'} end
  redis.call('ZREM', k[2], args[2])
  unlist(k[3], 'versions', string.format('%.0f', first), {name_of(args[2])})
  if args[3] ~= '' then
    redis.call('ZADD', k[2], string.format('%.0f', rest_first), args[3])
    redis.call('HDEL', k[3], name_of(args[3]))
  end
  redis.call('HSET', k[4], unpack(args, 5))
  redis.call('HINCRBY', k[1], 'stored_bytes', args[4])
  redis.call('HINCRBY', k[1], 'kept_bytes', kept_bytes(args))
  redis.call('HINCRBY', k[1], 'archived_bytes', string.format('%.0f', rest_bytes - bytes))
  return {args[1], 'trimmed'}
end
