-- The current entry of one key, with its bytes, and the head that it is current at.
-- KEYS: meta commits index
-- ARGV: nonce token max_bytes
-- REPLIES: found version incarnation first_version safe entry_version command
--          | none version incarnation first_version safe | elsewhere | absent | deleted version
-- FLAGS: no-writes
--
-- `elsewhere`: the version that brought it is not in the stream, or the entry is larger than asked.

local function current(k, args)
  local nonce = args[1]
  local m = redis.call('HMGET', k[1], 'version', 'incarnation', 'first_version', 'deleted',
    'safe')
  if not m[1] then return {nonce, 'absent'} end
  local version = tonumber(m[1])
  if m[4] then return {nonce, 'deleted', version} end
  local incarnation, first, safe = tonumber(m[2]), tonumber(m[3]), tonumber(m[5] or 0)
  local place = redis.call('HGET', k[3], args[2])
  if not place then return {nonce, 'none', version, incarnation, first, safe} end
  local entry_version, _, offset = struct.unpack('>I8I4I4', place)
  local fields = fields_of(k[2], entry_version)
  if not fields then return {nonce, 'elsewhere'} end
  local command = command_at(fields.b, offset)
  if #command > tonumber(args[3]) then return {nonce, 'elsewhere'} end
  return {nonce, 'found', version, incarnation, first, safe, entry_version, command}
end
