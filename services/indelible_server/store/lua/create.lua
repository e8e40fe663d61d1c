-- Writes a log's first keys; its id is the hash of its genesis, so an equal id is an equal log.
-- KEYS: meta
-- ARGV: nonce, then the fields of meta and their values
-- REPLIES: created | exists | deleted version
-- FLAGS:

local function create(k, args)
  local found = redis.call('HMGET', k[1], 'version', 'deleted')
  -- What is there is written again: a WAIT after it covers what an earlier call wrote.
  if found[1] then redis.call('HSET', k[1], 'version', found[1]) end
  if found[2] then return {args[1], 'deleted', tonumber(found[1])} end
  if found[1] then return {args[1], 'exists'} end
  local now = redis.call('TIME')
  local time_ms = string.format('%.0f', tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000))
  redis.call('HSET', k[1], 'created_ms', time_ms, 'time_ms', time_ms, unpack(args, 2))
  return {args[1], 'created'}
end
