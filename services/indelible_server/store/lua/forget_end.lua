-- Notes that everything below `before` is gone, and what the log takes now.
-- KEYS: meta
-- ARGV: nonce before bytes
-- REPLIES: noted | gone
-- FLAGS:

local function forget_end(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'forgotten')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  if tonumber(args[2]) > tonumber(m[3] or '0') then
    redis.call('HSET', k[1], 'forgotten', args[2], 'forgotten_bytes', args[3])
  end
  return {args[1], 'noted'}
end
