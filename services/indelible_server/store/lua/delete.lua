-- Deletes a log's contents. `keep` leaves a tombstone with its last version; `discard` leaves
-- nothing and is for a log that lost the race for its name.
-- KEYS: meta commits index chains chain_order answers0 answers1 control channel snapshots chunks blocks progress kept segments parts unlisted
-- ARGV: nonce keep|discard
-- REPLIES: deleted version archived (1 if the log has objects in the archive, or had) | absent
-- FLAGS:

local TOMBSTONE_LACKS = {'genesis_header', 'genesis_signature', 'genesis_body', 'name_ct',
  'newest_answers', 'ctl_head'}

local function delete(k, args)
  local version = redis.call('HGET', k[1], 'version')
  if not version then return {args[1], 'absent'} end
  local archived = redis.call('HEXISTS', k[1], 'archived_bytes')
  redis.call('UNLINK', unpack(k, 2, 8))
  redis.call('UNLINK', unpack(k, 10, 17))
  if args[2] == 'discard' then
    redis.call('UNLINK', k[1])
  else
    redis.call('HSET', k[1], 'deleted', '1')
    redis.call('HDEL', k[1], unpack(TOMBSTONE_LACKS))
    redis.call('SPUBLISH', k[9], 'deleted')
  end
  return {args[1], 'deleted', tonumber(version), archived}
end
