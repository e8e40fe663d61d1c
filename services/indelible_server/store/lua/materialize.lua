-- Writes which places the next versions of a log filled and emptied, and how far that goes by now.
-- KEYS: meta blocks progress
-- ARGV: nonce number (of the block) block changes entries (of the log up to the block's end), and
--       where it is the last of those that are summed up: field sum
-- REPLIES: written | done (by another: `number` is not the next) | gone
-- FLAGS:

local function materialize(k, args)
  local found = redis.call('HMGET', k[1], 'version', 'deleted')
  if not found[1] or found[2] then return {args[1], 'gone'} end
  if (redis.call('HGET', k[3], 'blocks') or '0') ~= args[2] then return {args[1], 'done'} end
  redis.call('HSET', k[2], args[2], args[3], unpack(args, 6))
  redis.call('HSET', k[3], 'blocks', string.format('%.0f', tonumber(args[2]) + 1),
    'changes', args[4], 'entries', args[5])
  return {args[1], 'written'}
end
