-- What idempotency remembers: msgpack arrays {seq, commit hash, version, changed}.
-- Shared by commit and recall; registers nothing.

local OPAQUE_ANSWERS = 65536

-- The stored answer to this writer's chain or idempotency key, or nil.
local function stored_answer(sealed, keys, answer_key, version, max_lag)
  if answer_key == '' then return nil end
  local packed
  if sealed then
    packed = redis.call('HGET', keys.chains, answer_key)
  else
    packed = redis.call('HGET', keys.answers0, answer_key)
      or redis.call('HGET', keys.answers1, answer_key)
  end
  if not packed then return nil end
  local answer = cmsgpack.unpack(packed)
  if sealed and version - answer[3] > max_lag then return nil end
  return answer
end

-- A reply without its nonce: what an earlier send got, why this one may not be judged, or nil.
local function recalled(sealed, answer, seq, commit_hash, version)
  if not answer then return nil end
  if sealed then
    if seq > answer[1] then return nil end
    if seq < answer[1] then
      return {'rejected', 'IDEMPOTENCY_EXPIRED', -1, version}
    end
  end
  if answer[2] ~= commit_hash then
    return {'rejected', 'IDEMPOTENCY_MISMATCH', -1, version}
  end
  return {'repeated', answer[3], answer[4]}
end

-- Records this commit's answer and lets go of those that nobody may ask for any more.
local function remember(sealed, keys, answer_key, seq, commit_hash, version, changed, max_lag)
  if answer_key == '' then return end
  local packed = cmsgpack.pack({seq, commit_hash, version, changed})
  if sealed then
    redis.call('HSET', keys.chains, answer_key, packed)
    redis.call('ZADD', keys.chain_order, version, answer_key)
    local limit = string.format('(%.0f', version - max_lag)
    local gone = redis.call('ZRANGE', keys.chain_order, '-inf', limit, 'BYSCORE', 'LIMIT', 0, 8)
    for _, chain in ipairs(gone) do
      redis.call('HDEL', keys.chains, chain)
      redis.call('ZREM', keys.chain_order, chain)
    end
    return
  end
  local newest = redis.call('HGET', keys.meta, 'newest_answers') or '0'
  local current, other = keys.answers0, keys.answers1
  if newest == '1' then current, other = other, current end
  if redis.call('HLEN', current) >= OPAQUE_ANSWERS then
    redis.call('UNLINK', other)
    redis.call('HSET', keys.meta, 'newest_answers', newest == '1' and '0' or '1')
    current = other
  end
  redis.call('HSET', current, answer_key, packed)
end
