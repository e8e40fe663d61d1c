-- Removes pieces of snapshots below the first version, wherever they are, and blocks that lie below it whole.
-- KEYS: meta snapshots chunks blocks parts unlisted
-- ARGV: nonce versions_a_block chunks (how many of the fields are of `chunks`), then fields
-- REPLIES: swept | gone
-- FLAGS:

local function forget_sweep(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  local first, block, chunks = tonumber(m[3]), tonumber(args[2]), tonumber(args[3])
  redis.call('ZREMRANGEBYSCORE', k[2], '-inf', '(' .. m[3])
  for _, digits in ipairs(redis.call('HKEYS', k[5])) do
    if tonumber(digits) < first then
      unlist(k[6], 'snapshot', digits, names_of(redis.call('HGET', k[5], digits)))
      redis.call('HDEL', k[5], digits)
    end
  end
  for i = 4, #args do
    local version = tonumber(string.match(args[i], '^%d+'))
    if i - 4 < chunks then
      if version < first then redis.call('HDEL', k[3], args[i]) end
    elseif (version + 1) * block <= first then
      redis.call('HDEL', k[4], args[i])
    end
  end
  return {args[1], 'swept'}
end
