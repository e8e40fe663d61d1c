-- Names of objects that nothing lists, nor ever will.
-- KEYS: meta commits segments parts unlisted
-- ARGV: nonce
-- REPLIES: found {name …} | gone
-- FLAGS: no-writes
--
-- All in one step: what is noted now may be listed a moment later.

local function archive_garbage(k, args)
  local m = redis.call('HMGET', k[1], 'version', 'deleted', 'first_version')
  if not m[1] or m[2] then return {args[1], 'gone'} end
  local floor, oldest = tonumber(m[3]), redis.call('XRANGE', k[2], '-', '+', 'COUNT', 1)[1]
  oldest = oldest and tonumber(string.match(oldest[1], '^%d+')) or 0
  local found, noted = {}, redis.call('HGETALL', k[5])
  for i = 1, #noted, 2 do
    local what, digits = string.match(noted[i + 1], '^(%a+) (%d+)')
    local version, never, names = tonumber(digits), false, {}
    if what == 'snapshot' then
      local parts = redis.call('HGET', k[4], digits)
      names = parts and names_of(parts) or names
      never = version <= floor or parts
    else
      local listed = redis.call('ZRANGEBYSCORE', k[3], digits, digits)[1]
      names = listed and {name_of(listed)} or names
      never = version < floor or listed or (what == 'versions' and version < oldest)
    end
    for _, name in ipairs(names) do never = never and name ~= noted[i] end
    if never then found[#found + 1] = noted[i] end
  end
  return {args[1], 'found', found}
end
