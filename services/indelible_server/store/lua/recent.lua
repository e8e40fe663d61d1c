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

local READ_BYTES = 4194304

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
    room = add_removed(k[2], from, fields.e, removed, seen, room, READ_BYTES)
    if not room then return far end
  end
  return {nonce, 'recent', version, tonumber(m[2]), tonumber(m[3]), safe, rows, removed}
end
