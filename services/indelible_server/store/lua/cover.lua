-- Writes next to nothing into a log, so that a WAIT after it covers all that came before.
-- KEYS: meta
-- ARGV: nonce safe (the version that the caller knows to be covered)
-- REPLIES: covered version | deleted version | absent
-- FLAGS: allow-oom

local function cover(k, args)
  local log = read_log(k[1])
  if not log then return {args[1], 'absent'} end
  cover_log(k[1], log, args[2])
  return {args[1], log.deleted and 'deleted' or 'covered', log.version}
end
