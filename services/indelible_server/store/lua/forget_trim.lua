-- Takes the oldest versions out of the stream, a run of them, and keeps their headers.
-- KEYS: meta commits kept
-- ARGV: nonce from to (the first that stays) growth (of the stored bytes), then fields of `kept`
--       and what they hold
-- REPLIES: trimmed | done (by another: `from` is not the oldest) | early (`to` can be read) | gone
-- FLAGS:

local function forget_trim(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  if tonumber(args[3]) > tonumber(m[3]) then return {args[1], 'early'} end
  local oldest = redis.call('XRANGE', k[2], '-', '+', 'COUNT', 1)[1]
  if not oldest or oldest[1] ~= args[2] .. '-0' then return {args[1], 'done'} end
  redis.call('HSET', k[3], unpack(args, 5))
  redis.call('XTRIM', k[2], 'MINID', '=', args[3] .. '-0')
  redis.call('HINCRBY', k[1], 'stored_bytes', args[4])
  redis.call('HINCRBY', k[1], 'kept_bytes', kept_bytes(args))
  return {args[1], 'trimmed'}
end
