-- Judges one commit against the head index and, if it takes effect, appends it.
-- KEYS: meta commits index chains chain_order answers0 answers1 control channel
-- ARGV: nonce kind answer_key seq commit_hash control ctl_seq generation epoch
--       next_generation next_epoch next_ctl_head expect_version seen_size header signature body
--       offsets (a u32 for each command: where it begins in the body)
--       commands: msgpack {ops, slots, tokens, values}: each command's op, which token it is on
--       (from 1), and its value: for Upsert, Insert, Update and Remove the index entry that it
--       makes but for the version, then the alts of value_id; for EXPECT_ENTRY and EXPECT_VERSION
--       a decimal version; else ''
--       safe: the version that the caller knows replicas to hold; '' where it waits for none
-- REPLIES: committed version time_ms | unchanged version | repeated version changed
--          | rejected code index version | absent | deleted version
-- FLAGS:
--
-- Everything is judged before the first write, and the first write is the append itself: Redis
-- refuses an id that is not above the last one, so a stale writer fails with nothing written.
--
-- Every outcome tells a version, which must not be taken back once it is told. What appends nothing
-- therefore writes as well where that version may be in no replica: the caller's WAIT covers it.

-- Globals cannot be read while the library loads, and are slow to read later: hot functions
-- take string functions as locals. What Python can lay out comes in laid out, in one argument, and
-- tables are indexed by number: at 4,096 commands a string made for each costs the store about a
-- millisecond, an argument for each two.

local UPSERT, INSERT, UPDATE, REMOVE, DELETE = 1, 2, 3, 4, 5
local EXPECT_ABSENT, EXPECT_ENTRY, EXPECT_VERSION = 6, 7, 8
local SLICE = 1000
local NOTHING, ADDS, REMOVES, REPLACES = '\0', '\1', '\2', '\3'
-- An index entry: u64 version ‖ u32 index ‖ u32 offset ‖ entry_hash[32] ‖ value_id[32].
local PLACE_BYTES, ENTRY_BYTES = 48, 80
local NEWS_BYTES, NEWS_READ_BYTES = 4096, 65536
local ID_IN_ENTRY, ID_IN_VALUE, VALUE_BYTES = PLACE_BYTES + 1, PLACE_BYTES - 7, ENTRY_BYTES - 8

-- Whether the value id at `at` in `held` is that of `value` or one of its alts.
local function is_same(held, at, value, byte, sub)
  if byte(held, at) == byte(value, ID_IN_VALUE)
    and sub(held, at, at + 31) == sub(value, ID_IN_VALUE, VALUE_BYTES) then
    return true
  end
  for alt = VALUE_BYTES + 1, #value, 32 do
    if sub(held, at, at + 31) == sub(value, alt, alt + 31) then return true end
  end
  return false
end

-- Head index entries by slot, or false.
local function load_entries(index_key, tokens)
  local entries, count = {}, #tokens
  for from = 1, count, SLICE do
    local to = math.min(from + SLICE - 1, count)
    local found = redis.call('HMGET', index_key, unpack(tokens, from, to))
    for i = from, to do entries[i] = found[i - from + 1] end
  end
  return entries
end

-- Runs the commands in order. Returns, by slot, the value that it ends with (false: none), the
-- number of the command that last changed it, and which slots were changed more than once; or
-- nil and the code and index of the first command that fails.
local function run_commands(commands, before, version)
  local byte, sub = string.byte, string.sub
  local ops, slots, values = commands[1], commands[2], commands[4]
  local ends, last, again = {}, {}, {}
  for i = 1, #ops do
    local op, slot, value = ops[i], slots[i], values[i]
    local changed_at = last[slot]
    local held, at = before[slot], ID_IN_ENTRY
    if changed_at then held, at = ends[slot], ID_IN_VALUE end
    if op == EXPECT_VERSION then
      if tonumber(value) ~= version then return nil, 'UNEXPECTED_VERSION', i - 1 end
    elseif op == EXPECT_ABSENT then
      if held then return nil, 'UNEXPECTED_VALUE', i - 1 end
    elseif op == EXPECT_ENTRY then
      if not held or changed_at or struct.unpack('>I8', held) ~= tonumber(value) then
        return nil, 'UNEXPECTED_ENTRY', i - 1
      end
    elseif op == DELETE or op == REMOVE then
      if held and (op == DELETE or is_same(held, at, value, byte, sub)) then
        again[slot] = changed_at
        ends[slot], last[slot] = false, i
      end
    elseif not (held and is_same(held, at, value, byte, sub)) then
      if op == INSERT and held then return nil, 'UNEXPECTED_VALUE', i - 1 end
      if op == UPDATE and not held then return nil, 'NONEXISTENT_VALUE', i - 1 end
      again[slot] = changed_at
      ends[slot], last[slot] = value, i
    end
  end
  return ends, last, again
end

-- Keys that end as they were before the commit keep their entry; the rest are its effects. Returns
-- the effects as PROTOCOL.md lays them out ('' for none), what to set and remove in the index, and
-- by how much it grows.
local function net_effects(commands, offsets, before, ends, last, again, version)
  local byte, sub = string.byte, string.sub
  local slots, tokens = commands[2], commands[3]
  local flags, places, sets, removes, growth = {}, {}, {}, {}, 0
  local place_version = struct.pack('>I8', version)
  local p, s, changed = 0, 0, false
  for i = 1, #slots do
    local slot, flag = slots[i], NOTHING
    if last[slot] == i then
      local old, new = before[slot], ends[slot]
      local kept = again[slot] and old and new and is_same(old, ID_IN_ENTRY, new, byte, sub)
      if (old or new) and not kept then
        flag, changed = ADDS, true
        if old then
          flag = new and REPLACES or REMOVES
          p = p + 1
          places[p] = sub(old, 1, PLACE_BYTES)
        else
          growth = growth + 1
        end
        if new then
          if #new > VALUE_BYTES then new = sub(new, 1, VALUE_BYTES) end
          sets[s + 1], sets[s + 2] = tokens[slot], place_version .. new
          s = s + 2
        else
          removes[#removes + 1] = tokens[slot]
          growth = growth - 1
        end
      end
    end
    flags[i] = flag
  end
  if not changed then return '', sets, removes, growth end
  local effects = struct.pack('>I4', #slots) .. table.concat(flags) .. offsets .. table.concat(places)
  return effects, sets, removes, growth
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

-- The reply of a commit that appends nothing.
local function told(meta, log, safe, reply)
  if safe ~= '' and (reply[2] == 'repeated' or log.deleted
    or log.version > math.max(log.safe, tonumber(safe))) then
    cover_log(meta, log, safe)
  end
  return reply
end

-- What the diff to a version from the one before needs, behind a space; '' where that is much. May
-- fail, on a log that is damaged.
local function news(keys, version, body, effects)
  local room, removed = NEWS_BYTES - #body - #effects, {}
  if room < 0 or not add_removed(keys.commits, version - 1, effects, removed, {}, room,
    NEWS_READ_BYTES) then return '' end
  local m = redis.call('HMGET', keys.meta, 'incarnation', 'first_version')
  return ' ' .. cmsgpack.pack({tonumber(m[1]), tonumber(m[2]), body, effects, removed})
end

-- Tells who listens of a version, with its news. Not so where it waits for replicas: another primary
-- may come to have another version of that number.
local function publish(keys, version, digits, body, effects, safe)
  if safe == '' then
    local is_known, listeners = pcall(redis.call, 'PUBSUB', 'SHARDNUMSUB', keys.channel)
    if is_known and listeners[2] == 0 then return end
    local is_told, told_of = pcall(news, keys, version, body, effects)
    if is_told then digits = digits .. told_of end
  end
  redis.call('SPUBLISH', keys.channel, digits)
end

local function commit(k, args)
  local keys, nonce, safe = named(k), args[1], args[20]
  local log = read_log(keys.meta)
  if not log then return {nonce, 'absent'} end
  local version = log.version
  if log.deleted then return told(keys.meta, log, safe, {nonce, 'deleted', version}) end
  if log.kind ~= args[2] then return {nonce, 'rejected', 'WRONG_LOG_KIND', -1, version} end

  local sealed, control = args[2] == 'sealed', args[6] == '1'
  local answer_key, seq, commit_hash = args[3], tonumber(args[4]), args[5]
  local answer = stored_answer(sealed, keys, answer_key, version, log.max_lag)
  local earlier = recalled(sealed, answer, seq, commit_hash, version)
  if earlier then return told(keys.meta, log, safe, {nonce, unpack(earlier)}) end
  if sealed then
    local fault = header_fault(log, version, args, control)
    if fault then return told(keys.meta, log, safe, {nonce, 'rejected', fault, -1, version}) end
  end

  local effects, sets, removes, growth = '', {}, {}, 0
  if not control then
    local commands = cmsgpack.unpack(args[19])
    local before = load_entries(keys.index, commands[3])
    local ends, last, again = run_commands(commands, before, version)
    if not ends then
      return told(keys.meta, log, safe, {nonce, 'rejected', last, again, version})
    end
    effects, sets, removes, growth =
      net_effects(commands, args[18], before, ends, last, again, version + 1)
    if effects == '' then
      remember(sealed, keys, answer_key, seq, commit_hash, version, 0, log.max_lag)
      return told(keys.meta, log, safe, {nonce, 'unchanged', version})
    end
  end

  local now = redis.call('TIME')
  local time_ms = math.max(tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000), log.time_ms)
  local covers = safe ~= '' and tonumber(safe) > log.safe and tonumber(safe) <= version
  version = version + 1
  local digits, time_digits = string.format('%.0f', version), string.format('%.0f', time_ms)
  redis.call('XADD', keys.commits, digits .. '-0', 'h', args[15], 's', args[16], 'b', args[17],
    't', time_digits, 'e', effects)
  in_slices('HSET', keys.index, sets)
  in_slices('HDEL', keys.index, removes)
  -- In one command: each costs the store a twentieth of the commit, and has its part of the file.
  local stored_bytes = log.stored_bytes + #args[15] + #args[16] + #args[17] + #effects
  local moved = {'version', digits, 'time_ms', time_digits,
    'entries', string.format('%.0f', log.entries + growth),
    'stored_bytes', string.format('%.0f', stored_bytes)}
  if covers then moved[9], moved[10] = 'safe', safe end
  redis.call('HSET', keys.meta, unpack(moved))
  if control then
    redis.call('HSET', keys.meta, 'generation', args[10], 'epoch', args[11],
      'ctl_seq', string.format('%.0f', log.ctl_seq + #cmsgpack.unpack(args[19])[1]),
      'ctl_head', args[12])
    redis.call('RPUSH', keys.control, digits)
  end
  remember(sealed, keys, answer_key, seq, commit_hash, version, 1, log.max_lag)
  publish(keys, version, digits, args[17], effects, safe)
  return {nonce, 'committed', version, time_ms}
end
