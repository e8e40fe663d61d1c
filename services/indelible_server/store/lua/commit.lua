-- Judges one commit against the head index and, if it takes effect, appends it.
-- KEYS: meta commits index chains chain_order answers0 answers1 control channel
-- ARGV: nonce kind answer_key seq commit_hash control ctl_seq generation epoch
--       next_generation next_epoch next_ctl_head expect_version seen_size header signature body
--       then per command: token, and op[1] offset[4] followed by value_id[32] entry_hash[32] alts
--       for commands on values or by a decimal version for EXPECT_ENTRY and EXPECT_VERSION
-- REPLIES: committed version time_ms | unchanged version | repeated version changed
--          | rejected code index version | absent | deleted version
-- FLAGS:
--
-- Everything is judged before the first write, and the first write is the append itself: Redis
-- refuses an id that is not above the last one, so a stale writer fails with nothing written.

local UPSERT, INSERT, UPDATE, REMOVE, DELETE = 1, 2, 3, 4, 5
local EXPECT_ABSENT, EXPECT_ENTRY, EXPECT_VERSION = 6, 7, 8
local FIRST_COMMAND = 18
local SLICE = 1000

local function has_id(ids, from, wanted)
  for at = from, #ids, 32 do
    if string.sub(ids, at, at + 31) == wanted then return true end
  end
  return false
end

-- Head index entries of all tokens, read in slices: token → entry or false.
local function load_entries(index_key, args)
  local entries, tokens = {}, {}
  local function read()
    local found = redis.call('HMGET', index_key, unpack(tokens))
    for i, token in ipairs(tokens) do entries[token] = found[i] end
    tokens = {}
  end
  for i = FIRST_COMMAND, #args, 2 do
    local token = args[i]
    if entries[token] == nil then
      entries[token] = false
      tokens[#tokens + 1] = token
      if #tokens == SLICE then read() end
    end
  end
  if #tokens > 0 then read() end
  return entries
end

-- Runs the commands in order. Returns after, last_packed, last_index by token, or nil and the
-- code and index of the first command that fails.
local function run_commands(args, before, version)
  local after, last_packed, last_index = {}, {}, {}
  local place_version = struct.pack('>I8', version + 1)
  local index = 0
  for i = FIRST_COMMAND, #args, 2 do
    local token, packed = args[i], args[i + 1]
    local op = string.byte(packed)
    local current = after[token]
    if current == nil then current = before[token] end
    if op == EXPECT_VERSION then
      if tonumber(string.sub(packed, 6)) ~= version then return nil, 'UNEXPECTED_VERSION', index end
    elseif op == EXPECT_ABSENT then
      if current then return nil, 'UNEXPECTED_VALUE', index end
    elseif op == EXPECT_ENTRY then
      if not current or last_index[token]
        or struct.unpack('>I8', current, 65) ~= tonumber(string.sub(packed, 6)) then
        return nil, 'UNEXPECTED_ENTRY', index
      end
    elseif op == DELETE then
      if current then
        after[token], last_packed[token], last_index[token] = false, packed, index
      end
    else
      local same = false
      if current then
        local held = string.sub(current, 1, 32)
        same = held == string.sub(packed, 6, 37) or has_id(packed, 70, held)
      end
      if op == REMOVE then
        if same then
          after[token], last_packed[token], last_index[token] = false, packed, index
        end
      elseif not same then
        if op == INSERT and current then return nil, 'UNEXPECTED_VALUE', index end
        if op == UPDATE and not current then return nil, 'NONEXISTENT_VALUE', index end
        after[token] = string.sub(packed, 6, 69) .. place_version .. struct.pack('>I4', index)
        last_packed[token], last_index[token] = packed, index
      end
    end
    index = index + 1
  end
  return after, last_packed, last_index
end

-- Keys that end as they were before the commit keep their entry; the rest are its effects.
local function net_effects(args, before, after, last_packed, last_index)
  local effects, sets, removes, growth = {}, {}, {}, 0
  local index = 0
  for i = FIRST_COMMAND, #args, 2 do
    local token = args[i]
    if last_index[token] == index then
      local old, new, packed = before[token], after[token], last_packed[token]
      local kept = not old and not new
      if old and new then
        local held = string.sub(old, 1, 32)
        kept = held == string.sub(new, 1, 32) or has_id(packed, 70, held)
      end
      if not kept then
        local flags = (new and 1 or 0) + (old and 2 or 0)
        local effect = struct.pack('>I4', index) .. string.sub(packed, 2, 5) .. string.char(flags)
        if old then effect = effect .. string.sub(old, 65, 76) .. string.sub(old, 33, 64) end
        effects[#effects + 1] = effect
        if new then
          sets[#sets + 1] = token
          sets[#sets + 1] = new
          if not old then growth = growth + 1 end
        else
          removes[#removes + 1] = token
          growth = growth - 1
        end
      end
    end
    index = index + 1
  end
  return table.concat(effects), sets, removes, growth
end

local function in_slices(command, key, items)
  for from = 1, #items, 2 * SLICE do
    redis.call(command, key, unpack(items, from, math.min(from + 2 * SLICE - 1, #items)))
  end
end

-- What the header of a sealed commit gets wrong, or nil.
local function header_fault(log, version, args, control)
  local behind = version + 1 - tonumber(args[14])
  if behind < 0 then return 'BAD_REQUEST' end
  if behind > log.max_lag then return 'IDEMPOTENCY_EXPIRED' end
  local ctl_seq = tonumber(args[7])
  if args[8] ~= log.generation or args[9] ~= log.epoch
    or ctl_seq > log.ctl_seq or (control and ctl_seq ~= log.ctl_seq) then
    return 'STALE_EPOCH'
  end
  if args[13] ~= '' and tonumber(args[13]) ~= version then return 'UNEXPECTED_VERSION' end
  return nil
end

local function commit(k, args)
  local keys, nonce = named(k), args[1]
  local log = read_log(keys.meta)
  if not log then return {nonce, 'absent'} end
  local version = log.version
  if log.deleted then return {nonce, 'deleted', version} end
  if log.kind ~= args[2] then return {nonce, 'rejected', 'WRONG_LOG_KIND', -1, version} end

  local sealed, control = args[2] == 'sealed', args[6] == '1'
  local answer_key, seq, commit_hash = args[3], tonumber(args[4]), args[5]
  local answer = stored_answer(sealed, keys, answer_key, version, log.max_lag)
  local earlier = recalled(sealed, answer, seq, commit_hash, version)
  if earlier then return {nonce, unpack(earlier)} end
  if sealed then
    local fault = header_fault(log, version, args, control)
    if fault then return {nonce, 'rejected', fault, -1, version} end
  end

  local effects, sets, removes, growth = '', {}, {}, 0
  if not control then
    local before = load_entries(keys.index, args)
    local after, last_packed, last_index = run_commands(args, before, version)
    if not after then return {nonce, 'rejected', last_packed, last_index, version} end
    effects, sets, removes, growth = net_effects(args, before, after, last_packed, last_index)
    if effects == '' then
      remember(sealed, keys, answer_key, seq, commit_hash, version, 0, log.max_lag)
      return {nonce, 'unchanged', version}
    end
  end

  local now = redis.call('TIME')
  local time_ms = math.max(tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000), log.time_ms)
  version = version + 1
  local digits, time_digits = string.format('%.0f', version), string.format('%.0f', time_ms)
  redis.call('XADD', keys.commits, digits .. '-0', 'h', args[15], 's', args[16], 'b', args[17],
    't', time_digits, 'e', effects)
  in_slices('HSET', keys.index, sets)
  in_slices('HDEL', keys.index, removes)
  redis.call('HSET', keys.meta, 'version', digits, 'time_ms', time_digits)
  redis.call('HINCRBY', keys.meta, 'entries', growth)
  redis.call('HINCRBY', keys.meta, 'stored_bytes', #args[15] + #args[16] + #args[17] + #effects)
  if control then
    redis.call('HSET', keys.meta, 'generation', args[10], 'epoch', args[11],
      'ctl_seq', string.format('%.0f', log.ctl_seq + (#args - FIRST_COMMAND + 1) / 2),
      'ctl_head', args[12])
    redis.call('RPUSH', keys.control, digits)
  end
  remember(sealed, keys, answer_key, seq, commit_hash, version, 1, log.max_lag)
  redis.call('SPUBLISH', keys.channel, digits)
  return {nonce, 'committed', version, time_ms}
end
