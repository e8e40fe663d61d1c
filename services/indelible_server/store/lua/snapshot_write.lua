-- Writes pieces of a snapshot that is not listed yet: nobody reads them.
-- KEYS: meta chunks
-- ARGV: nonce, then fields and pieces
-- REPLIES: written | forgotten (the pieces are of a version below the first) | gone
-- FLAGS:

local function snapshot_write(k, args)
  local found = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not found[1] or found[2] then return {args[1], 'gone'} end
  if tonumber(string.match(args[2], '^%d+')) < tonumber(found[3]) then
    return {args[1], 'forgotten'}
  end
  redis.call('HSET', k[2], unpack(args, 2))
  return {args[1], 'written'}
end
