-- Notes that versions below `before` are to be forgotten; from here on it may be finished by anybody.
-- KEYS: meta
-- ARGV: nonce before bytes (that the log takes now) begin|continue (only what is noted already)
-- REPLIES: noted | done | unnoted | above version | gone
-- FLAGS:

local function forget(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'forgotten', 'forget_before')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  local before = tonumber(args[2])
  if before > tonumber(m[1]) then return {args[1], 'above', tonumber(m[1])} end
  if before <= tonumber(m[3] or '0') then return {args[1], 'done'} end
  if before <= tonumber(m[4] or '0') then return {args[1], 'noted'} end
  if args[4] == 'continue' then return {args[1], 'unnoted'} end
  redis.call('HSET', k[1], 'forget_before', args[2], 'forget_bytes', args[3])
  return {args[1], 'noted'}
end
