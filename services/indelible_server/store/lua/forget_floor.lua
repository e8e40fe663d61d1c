-- Makes `version` the first that can be read, in one step, once its base is listed; never goes back.
-- Blocks below it need not be written any more: the base tells what they would.
-- KEYS: meta snapshots progress parts
-- ARGV: nonce version base_bytes blocks (that lie below it) changes entries (of the base)
-- REPLIES: moved | passed (the first version is this one or a later one) | torn (no base, or it is in the archive) | gone
-- FLAGS:

local function forget_floor(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version', 'base_bytes')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  if tonumber(args[2]) <= tonumber(m[3]) then return {args[1], 'passed'} end
  if redis.call('ZCOUNT', k[2], args[2], args[2]) == 0 or redis.call('HEXISTS', k[4], args[2]) == 1 then
    return {args[1], 'torn'}
  end
  if tonumber(redis.call('HGET', k[3], 'blocks') or '0') < tonumber(args[4]) then
    redis.call('HSET', k[3], 'blocks', args[4], 'changes', args[5], 'entries', args[6])
  end
  redis.call('HSET', k[1], 'first_version', args[2], 'base_bytes', args[3])
  redis.call('HINCRBY', k[1], 'stored_bytes', tonumber(args[3]) - tonumber(m[4] or '0'))
  return {args[1], 'moved'}
end
