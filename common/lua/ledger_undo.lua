-- The relay provably did not take these: they may be tried again. A mail that is done keeps its bit.
-- KEYS: tried, done   ARGV: indices (u32 little-endian each), keep s   Reply: how many changed.
local changed = 0
for at = 1, #ARGV[1], 4 do
  local i = struct.unpack('<I4', ARGV[1], at)
  if redis.call('GETBIT', KEYS[2], i) == 0 then changed = changed + redis.call('SETBIT', KEYS[1], i, 0) end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return changed
