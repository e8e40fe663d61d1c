-- A log's keys by name, and what every judgement of a commit needs of its meta.
-- Shared by commit, recall and cover; registers nothing.

local function read_log(meta)
  local m = redis.call('HMGET', meta, 'version', 'kind', 'deleted', 'max_lag', 'generation',
    'epoch', 'ctl_seq', 'time_ms', 'safe', 'entries', 'stored_bytes')
  if not m[1] then return nil end
  return {
    version = tonumber(m[1]), kind = m[2], deleted = m[3], max_lag = tonumber(m[4]),
    generation = m[5], epoch = m[6], ctl_seq = tonumber(m[7]), time_ms = tonumber(m[8]),
    safe = tonumber(m[9] or 0), entries = tonumber(m[10] or 0), stored_bytes = tonumber(m[11] or 0),
  }
end

-- A write that changes nothing but what is known to be safe: replicas that have it have all before.
-- A caller may know of versions that a failover took back: nothing above the log's own is safe.
local function cover_log(meta, log, safe)
  local known = math.min(math.max(log.safe, tonumber(safe)), log.version)
  redis.call('HSET', meta, 'safe', string.format('%.0f', known))
end

local function named(k)
  return {
    meta = k[1], commits = k[2], index = k[3], chains = k[4], chain_order = k[5],
    answers0 = k[6], answers1 = k[7], control = k[8], channel = k[9],
  }
end
