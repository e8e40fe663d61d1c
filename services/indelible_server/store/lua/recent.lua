-- The last few versions of a log: its head, and all that the diff to it needs.
-- KEYS: meta commits
-- ARGV: nonce from_version max_versions max_bytes
-- REPLIES: recent version incarnation first_version safe {version body effects …}
--          {version offset command …} | far version incarnation first_version safe | absent | deleted version
-- FLAGS: no-writes
--
-- The second list holds the commands that brought in what these versions removed, where that was
-- at from_version or before it. `far`: from_version is not a version below the head, or what lies
-- between is more than was asked for.

-- The versions and offsets where the entries came in that a commit removed.
local function removed_places(effects)
  local places = {}
  if effects == '' then return places end
  local count = struct.unpack('>I4', effects)
  for at = 5 + 5 * count, #effects, 48 do
    local version, _, offset = struct.unpack('>I8I4I4', effects, at)
    places[#places + 1] = {version, offset}
  end
  return places
end

local function command_at(body, offset)
  local at = offset + 4 + struct.unpack('>I2', body, offset + 2)
  at = at + 2 + struct.unpack('>I2', body, at)
  at = at + 4 + struct.unpack('>I4', body, at)
  at = at + 2 + struct.unpack('>I2', body, at)
  return string.sub(body, offset + 1, at - 1)
end

local function fields_of(commits, version)
  local id = string.format('%.0f-0', version)
  local row = redis.call('XRANGE', commits, id, id)[1]
  if not row then return nil end
  local fields = {}
  for i = 1, #row[2], 2 do fields[row[2][i]] = row[2][i + 1] end
  return fields
end

local function recent(k, args)
  local nonce, from = args[1], tonumber(args[2])
  local max_versions, room = tonumber(args[3]), tonumber(args[4])
  local m = redis.call('HMGET', k[1], 'version', 'incarnation', 'first_version', 'deleted',
    'safe')
  if not m[1] then return {nonce, 'absent'} end
  local version = tonumber(m[1])
  if m[4] then return {nonce, 'deleted', version} end
  local safe = tonumber(m[5] or 0)
  local far = {nonce, 'far', version, tonumber(m[2]), tonumber(m[3]), safe}
  if from >= version or version - from > max_versions then return far end
  local rows, removed, seen = {}, {}, {}
  for v = from + 1, version do
    local fields = fields_of(k[2], v)
    if not fields then return far end
    room = room - #fields.b - #fields.e
    if room < 0 then return far end
    rows[#rows + 1], rows[#rows + 2], rows[#rows + 3] = v, fields.b, fields.e
    for _, place in ipairs(removed_places(fields.e)) do
      local id = string.format('%.0f-%.0f', place[1], place[2])
      if place[1] <= from and not seen[id] then
        seen[id] = true
        local fields_there = fields_of(k[2], place[1])
        if not fields_there then return far end
        local command = command_at(fields_there.b, place[2])
        room = room - #command
        if room < 0 or #removed >= 3 * 64 then return far end
        removed[#removed + 1], removed[#removed + 2], removed[#removed + 3] =
          place[1], place[2], command
      end
    end
  end
  return {nonce, 'recent', version, tonumber(m[2]), tonumber(m[3]), safe, rows, removed}
end
