-- Lists a snapshot: from here on it is read. All of its pieces must be there, or in the archive;
-- one whose pieces are all there again is in the archive no more.
-- KEYS: meta snapshots chunks parts unlisted
-- ARGV: nonce version snapshot chunks buckets
-- REPLIES: listed | torn (a piece is not there) | forgotten (it is below the first version) | gone
-- FLAGS:

local function snapshot_list(k, args)
  local found = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not found[1] or found[2] then return {args[1], 'gone'} end
  if tonumber(args[2]) < tonumber(found[3]) then return {args[1], 'forgotten'} end
  local prefix, exists = args[2] .. ':', redis.call
  local whole = exists('HEXISTS', k[3], prefix .. 'places') == 1
  for number = 0, tonumber(args[4]) - 1 do
    whole = whole and exists('HEXISTS', k[3], prefix .. string.format('%.0f', number)) == 1
  end
  for number = 0, tonumber(args[5]) - 1 do
    whole = whole and exists('HEXISTS', k[3], prefix .. 't' .. string.format('%.0f', number)) == 1
  end
  local parts = redis.call('HGET', k[4], args[2])
  if not whole then return {args[1], parts and 'listed' or 'torn'} end
  if parts then
    redis.call('HDEL', k[4], args[2])
    unlist(k[5], 'snapshot', args[2], names_of(parts))
  end
  redis.call('ZADD', k[2], args[2], args[3])
  return {args[1], 'listed'}
end
