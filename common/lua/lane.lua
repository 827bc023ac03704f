-- One owner a lane.   KEYS: lease, fence, clean   ARGV: acquire | release, owner, ttl ms (release: 1 when clean)
-- acquire: {fence > 0, clean} when owned now (again when it was ours already); {-ms to wait} while another owns it.
--   clean = 1: the owner before let go of it with nothing left in doubt. 2: nobody owned it since the view was built; what
--   was before that nobody knows.
-- release: 1 when it was ours.
-- The fence rises with every new owner; it is kept 30 days beyond the last use of the lane.
local KEEP_S = 30 * 86400
local owner = redis.call('GET', KEYS[1])
local mine = owner == ARGV[2]
if ARGV[1] == 'release' then
  if mine then
    redis.call('DEL', KEYS[1])
    if ARGV[3] == '1' then redis.call('SET', KEYS[3], 1, 'EX', KEEP_S) end
  end
  return mine and 1 or 0
end
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
if owner and not mine then return {-math.max(1, redis.call('PTTL', KEYS[1]))} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
local clean = 0
if not mine then
  if redis.call('EXISTS', KEYS[3]) == 1 then clean = 1 end
  if redis.call('INCR', KEYS[2]) == 1 and clean == 0 then clean = 2 end
  redis.call('DEL', KEYS[3])
end
redis.call('EXPIRE', KEYS[2], KEEP_S)
local fence = tonumber(redis.call('GET', KEYS[2])) or redis.call('INCR', KEYS[2])
return {fence, clean}
