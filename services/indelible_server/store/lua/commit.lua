-- Judges one commit against the head index and, if it takes effect, appends it.
-- KEYS: meta commits index chains chain_order answers0 answers1 control channel
-- ARGV: nonce kind answer_key seq commit_hash control ctl_seq generation epoch
--       next_generation next_epoch next_ctl_head expect_version seen_size header signature body ops
--       then per command, whose op is a byte of ops: token, value_id ‖ alts (a decimal version for
--       EXPECT_ENTRY and EXPECT_VERSION), u32 index ‖ u32 offset, entry_hash ('' but for sets)
-- REPLIES: committed version time_ms | unchanged version | repeated version changed
--          | rejected code index version | absent | deleted version
-- FLAGS:
--
-- Everything is judged before the first write, and the first write is the append itself: Redis
-- refuses an id that is not above the last one, so a stale writer fails with nothing written.

-- Globals cannot be read while the library loads, and are slow to read later: hot functions
-- take string functions as locals. Strings that Python can lay out come in laid out: at 4,096 commands every string made here
-- costs the store half a millisecond.

local UPSERT, INSERT, UPDATE, REMOVE, DELETE = 1, 2, 3, 4, 5
local EXPECT_ABSENT, EXPECT_ENTRY, EXPECT_VERSION = 6, 7, 8
local FIRST_COMMAND, ARGUMENTS = 19, 4
local SLICE = 1000
local ADDS, REMOVES, REPLACES = '\1', '\2', '\3'

-- Whether an index entry (value_id[32] ‖ place) begins with one of `ids`, a value id and its
-- alts. `find` compares without making a string.
local function is_same(entry, ids, find)
  if #ids == 32 then return find(entry, ids, 1, true) == 1 end
  for at = 1, #ids, 32 do
    if find(entry, string.sub(ids, at, at + 31), 1, true) == 1 then return true end
  end
  return false
end

-- Head index entries of all tokens, read in slices: token → entry or false.
local function load_entries(index_key, args)
  local entries, tokens, waiting = {}, {}, 0
  local function read()
    local found = redis.call('HMGET', index_key, unpack(tokens))
    for i = 1, waiting do entries[tokens[i]] = found[i] end
    tokens, waiting = {}, 0
  end
  for i = FIRST_COMMAND, #args, ARGUMENTS do
    local token = args[i]
    if entries[token] == nil then
      entries[token] = false
      waiting = waiting + 1
      tokens[waiting] = token
      if waiting == SLICE then read() end
    end
  end
  if waiting > 0 then read() end
  return entries
end

-- Runs the commands in order. Returns, by token, the value id that it ends with (false: none),
-- the position in args of the command that last changed it, and which tokens were changed more
-- than once; or nil and the code and index of the first command that fails.
local function run_commands(args, before, version)
  local byte, find = string.byte, string.find
  local ids, last, again = {}, {}, {}
  local ops, index = args[FIRST_COMMAND - 1], 0
  for i = FIRST_COMMAND, #args, ARGUMENTS do
    local token, value = args[i], args[i + 1]
    index = index + 1
    local op, changed_at, entry = byte(ops, index), last[token], before[token]
    local held
    if changed_at then held = ids[token] else held = entry end
    if op == EXPECT_VERSION then
      if tonumber(value) ~= version then return nil, 'UNEXPECTED_VERSION', index - 1 end
    elseif op == EXPECT_ABSENT then
      if held then return nil, 'UNEXPECTED_VALUE', index - 1 end
    elseif op == EXPECT_ENTRY then
      if not held or changed_at or struct.unpack('>I8', entry, 33) ~= tonumber(value) then
        return nil, 'UNEXPECTED_ENTRY', index - 1
      end
    elseif op == DELETE then
      if held then
        again[token] = changed_at
        ids[token], last[token] = false, i
      end
    else
      local same = held and is_same(held, value, find)
      if op == REMOVE then
        if same then
          again[token] = changed_at
          ids[token], last[token] = false, i
        end
      elseif not same then
        if op == INSERT and held then return nil, 'UNEXPECTED_VALUE', index - 1 end
        if op == UPDATE and not held then return nil, 'NONEXISTENT_VALUE', index - 1 end
        again[token] = changed_at
        ids[token], last[token] = value, i
      end
    end
  end
  return ids, last, again
end

-- Keys that end as they were before the commit keep their entry; the rest are its effects.
local function net_effects(args, before, ids, last, again, version)
  local sub, find = string.sub, string.find
  local effects, sets, removes, growth = {}, {}, {}, 0
  local place_version = struct.pack('>I8', version)
  local e, s = 0, 0
  for i = FIRST_COMMAND, #args, ARGUMENTS do
    local token = args[i]
    if last[token] == i then
      local old, new = before[token], ids[token]
      local kept = again[token] and old and new and is_same(old, new, find)
      if (old or new) and not kept then
        effects[e + 1] = args[i + 2]
        if old then
          effects[e + 2], effects[e + 3] = new and REPLACES or REMOVES, sub(old, 33, 80)
          e = e + 3
        else
          effects[e + 2] = ADDS
          e = e + 2
          growth = growth + 1
        end
        if new then
          if #new > 32 then new = sub(new, 1, 32) end
          sets[s + 1], sets[s + 2] = token, new .. place_version .. args[i + 2] .. args[i + 3]
          s = s + 2
        else
          removes[#removes + 1] = token
          growth = growth - 1
        end
      end
    end
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
    local ids, last, again = run_commands(args, before, version)
    if not ids then return {nonce, 'rejected', last, again, version} end
    effects, sets, removes, growth = net_effects(args, before, ids, last, again, version + 1)
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
      'ctl_seq', string.format('%.0f', log.ctl_seq + (#args - FIRST_COMMAND + 1) / ARGUMENTS),
      'ctl_head', args[12])
    redis.call('RPUSH', keys.control, digits)
  end
  remember(sealed, keys, answer_key, seq, commit_hash, version, 1, log.max_lag)
  redis.call('SPUBLISH', keys.channel, digits)
  return {nonce, 'committed', version, time_ms}
end
