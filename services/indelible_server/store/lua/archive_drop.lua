-- Drops pieces of a snapshot that are in the archive as well.
-- KEYS: meta parts chunks
-- ARGV: nonce version, then fields of `chunks` that are the snapshot's
-- REPLIES: dropped | back (it is not in the archive any more) | gone
-- FLAGS: allow-oom

local function archive_drop(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  if redis.call('HEXISTS', k[2], args[2]) == 0 then return {args[1], 'back'} end
  redis.call('HDEL', k[3], unpack(args, 3))
  return {args[1], 'dropped'}
end
