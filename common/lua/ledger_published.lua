-- mail.outcomes has these: their pending copies may go.
-- KEYS: pending   ARGV: indices (u32 little-endian each)   Reply: how many there were.
local gone = 0
for at = 1, #ARGV[1], 4 do gone = gone + redis.call('HDEL', KEYS[1], (struct.unpack('<I4', ARGV[1], at))) end
return gone
