-- The names in what lists archived objects: in segments, and in a snapshot's parts.
-- Shared by the functions of archiving and forgetting; registers nothing.

local function hex(bytes)
  return (string.gsub(bytes, '.', function(c) return string.format('%02x', string.byte(c)) end))
end

-- A segment is u64 first, last, bytes ‖ name.
local function name_of(segment) return hex(string.sub(segment, 25)) end

-- Parts are u64 end ‖ name, each.
local function names_of(parts)
  local names = {}
  for at = 9, #parts, 40 do names[#names + 1] = hex(string.sub(parts, at, at + 31)) end
  return names
end

-- What stays of forgotten versions counts in `stored_bytes`, and cannot be moved: fields from the
-- fifth argument on.
local function kept_bytes(args)
  local size = 0
  for i = 6, #args, 2 do size = size + #args[i] end
  return string.format('%.0f', size)
end

-- Objects that were listed until now: notes them as to be deleted, and at once struck out.
local function unlist(unlisted, what, version, names)
  for _, name in ipairs(names) do
    redis.call('HSET', unlisted, name, what .. ' ' .. version .. ' 0')
  end
end
