-- Compares and sets a name record, so that of several creators of a name one wins.
-- KEYS: name
-- ARGV: nonce expected record ('' for none) new record
-- REPLIES: bound | held record
-- FLAGS:

local function bind(k, args)
  local record = redis.call('GET', k[1]) or ''
  if record ~= args[2] then
    -- Written again: a WAIT after it covers what is told.
    if record ~= '' then redis.call('SET', k[1], record) end
    return {args[1], 'held', record}
  end
  redis.call('SET', k[1], args[3])
  return {args[1], 'bound'}
end
