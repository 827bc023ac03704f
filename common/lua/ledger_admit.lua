-- Ingestion took these: `seen`, counted once each, their address hashes (16 bytes a recipient, at 16 x index).
-- KEYS: seen, addr, totals   ARGV: indices (u32 little-endian each), hashes (16 bytes each), keep s
-- Reply: how many were new. A number admitted before keeps its first hash.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local new = 0
for at = 1, #ARGV[1], 4 do
  local i = struct.unpack('<I4', ARGV[1], at)
  if redis.call('SETBIT', KEYS[1], i, 1) == 0 then
    new = new + 1
    redis.call('SETRANGE', KEYS[2], string.format('%.0f', i * 16), string.sub(ARGV[2], (at - 1) * 4 + 1, (at - 1) * 4 + 16))
  end
end
if new > 0 then redis.call('HINCRBY', KEYS[3], 'submitted', new) end
for k = 1, 3 do redis.call('EXPIRE', KEYS[k], ARGV[3]) end
return new
