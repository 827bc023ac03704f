-- What one campaign has in one hour at one relay: mails taken ("a") or hard bounces ("h"). Told as a total, not as an increase,
-- so that telling it twice, late or out of order changes nothing. relay_report.lua judges the sums.
-- KEYS: td:{r:<relay>}:hours (hash: "<hour> a|h" -> sum over campaigns), td:{r:<relay>}:hour:<hour> (hash: what each campaign
--   told last)   ARGV: hour, a | h, campaign, total; now (s) in tests only
-- Reply: by how much the sum grew.
local HOURS, KEEP_S = 24, 26 * 3600
local now = math.floor((ARGV[5] or redis.call('TIME')[1]) / 3600)
local hour, value = tonumber(ARGV[1]), tonumber(ARGV[4])
if hour <= now - HOURS or hour > now + 1 then return 0 end
local field = ARGV[2] .. ' ' .. ARGV[3]
local grew = value - tonumber(redis.call('HGET', KEYS[2], field) or 0)
if grew <= 0 then return 0 end
redis.call('HSET', KEYS[2], field, value)
redis.call('HINCRBY', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], grew)
for k = 1, 2 do redis.call('EXPIRE', KEYS[k], KEEP_S) end
return grew
