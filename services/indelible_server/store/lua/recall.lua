-- The answer that an earlier send of this commit got. Also where memory is full: it writes nothing.
-- KEYS: meta commits index chains chain_order answers0 answers1 control channel
-- ARGV: nonce kind answer_key seq commit_hash
-- REPLIES: repeated version changed | rejected code index version | unknown version | absent
--          | deleted version
-- FLAGS: no-writes

local function recall(k, args)
  local keys, nonce = named(k), args[1]
  local log = read_log(keys.meta)
  if not log then return {nonce, 'absent'} end
  if log.deleted then return {nonce, 'deleted', log.version} end
  local sealed = args[2] == 'sealed'
  local answer = stored_answer(sealed, keys, args[3], log.version, log.max_lag)
  local earlier = recalled(sealed, answer, tonumber(args[4]), args[5], log.version)
  if earlier then return {nonce, unpack(earlier)} end
  return {nonce, 'unknown', log.version}
end
