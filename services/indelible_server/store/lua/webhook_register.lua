-- Lists a webhook under its tenant, unless that has as many as it may.
-- KEYS: listing
-- ARGV: nonce webhook_id created_ms most
-- REPLIES: registered | full count
-- FLAGS:

local function webhook_register(k, args)
  local count = redis.call('ZCARD', k[1])
  if count >= tonumber(args[4]) and not redis.call('ZSCORE', k[1], args[2]) then
    return {args[1], 'full', count}
  end
  redis.call('ZADD', k[1], args[3], args[2])
  return {args[1], 'registered'}
end
