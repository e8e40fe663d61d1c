-- Notes the name of an object that is about to be put and not listed yet, so that it is not lost.
-- KEYS: meta commits parts unlisted
-- ARGV: nonce versions|rewritten|snapshot version (the first, or the snapshot's) name
-- REPLIES: noted | done (by another, or not wanted any more) | gone
-- FLAGS: allow-oom

local function archive_note(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  local version, floor = tonumber(args[3]), tonumber(m[3])
  local wanted = version >= floor
  if args[2] == 'versions' then
    local oldest = redis.call('XRANGE', k[2], '-', '+', 'COUNT', 1)[1]
    wanted = wanted and oldest and oldest[1] == args[3] .. '-0'
  elseif args[2] == 'snapshot' then
    wanted = version > floor and redis.call('HEXISTS', k[3], args[3]) == 0
  end
  if not wanted then return {args[1], 'done'} end
  local now = redis.call('TIME')
  redis.call('HSET', k[4], args[4], args[2] .. ' ' .. args[3] .. ' ' .. now[1])
  redis.call('HINCRBY', k[1], 'archived_bytes', 0)
  return {args[1], 'noted'}
end
