-- Gives a dispatcher the sole right to work on a webhook for a while, and all it needs to do so.
-- Claiming again prolongs the right. Positions are left out where the caller knows them.
-- KEYS: meta claim positions pending due replays finished dead
-- ARGV: nonce owner ttl_ms moves (that the caller's positions are of; '' for none)
-- REPLIES: claimed token meta pending due replay positions | held ttl_ms | absent
-- FLAGS:

local function webhook_claim(k, args)
  local keys = named_webhook(k)
  if redis.call('EXISTS', keys.meta) == 0 then return {args[1], 'absent'} end
  local token = redis.call('GET', keys.claim)
  if token and string.sub(token, 1, #args[2] + 1) ~= args[2] .. ':' then
    return {args[1], 'held', redis.call('PTTL', keys.claim)}
  end
  if not token then
    token = args[2] .. ':' .. digits(redis.call('HINCRBY', keys.meta, 'fence', 1))
  end
  redis.call('SET', keys.claim, token, 'PX', args[3])
  local positions = false
  if (redis.call('HGET', keys.meta, 'moves') or '0') ~= args[4] then
    positions = redis.call('HGETALL', keys.positions)
  end
  return {args[1], 'claimed', token, redis.call('HGETALL', keys.meta),
    redis.call('HGETALL', keys.pending), redis.call('ZRANGE', keys.due, 0, -1, 'WITHSCORES'),
    redis.call('LINDEX', keys.replays, 0), positions}
end
