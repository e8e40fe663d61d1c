-- What a version did to the entries before it, as who follows a log is told. Shared by commit and
-- recent; registers nothing.

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

-- Adds to `removed` {version offset command …} the commands that brought in what `effects` removed,
-- where that was at `from` or before it and not in `seen`. Returns how many bytes of `room` are
-- left, or nil where that is not enough, a version is not there, or they are more than `most` bytes.
-- `seen` keeps the bodies of versions, by their numbers, and how large they are together.
local function add_removed(commits, from, effects, removed, seen, room, most)
  for _, place in ipairs(removed_places(effects)) do
    local id = string.format('%.0f-%.0f', place[1], place[2])
    if place[1] <= from and not seen[id] then
      seen[id] = true
      local body = seen[place[1]]
      if not body then
        local fields = fields_of(commits, place[1])
        if not fields then return nil end
        body = fields.b
        seen[place[1]], seen.bytes = body, (seen.bytes or 0) + #body
        if seen.bytes > most then return nil end
      end
      local command = command_at(body, place[2])
      room = room - #command
      if room < 0 or #removed >= 3 * 64 then return nil end
      removed[#removed + 1], removed[#removed + 2], removed[#removed + 3] =
        place[1], place[2], command
    end
  end
  return room
end
