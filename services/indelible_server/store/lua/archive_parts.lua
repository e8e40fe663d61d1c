-- Lists the objects that hold a snapshot's pieces: from here on the store's own may be dropped.
-- KEYS: meta snapshots parts unlisted
-- ARGV: nonce version parts (u64 end ‖ name, each)
-- REPLIES: moved | done (by another, or it is the base or below it) | gone
-- FLAGS: allow-oom

local function archive_parts(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  if tonumber(args[2]) <= tonumber(m[3]) or redis.call('HEXISTS', k[3], args[2]) == 1
    or redis.call('ZCOUNT', k[2], args[2], args[2]) == 0 then
    return {args[1], 'done'}
  end
  redis.call('HSET', k[3], args[2], args[3])
  for _, name in ipairs(names_of(args[3])) do redis.call('HDEL', k[4], name) end
  return {args[1], 'moved'}
end
