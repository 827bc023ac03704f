-- One owner a lane.   KEYS: lease, fence   ARGV: acquire | renew | release, owner, ttl ms
-- acquire: the fence (> 0) when owned now, again when it was ours already; -ms to wait while another owns it.
-- renew: the fence while still ours, 0 when lost (run out, taken, or Redis lost its data).   release: 1 when it was ours.
-- The fence rises with every new owner; it is kept 30 days beyond the last use of the lane.
local KEEP_S = 30 * 86400
local owner = redis.call('GET', KEYS[1])
local mine = owner == ARGV[2]
if ARGV[1] == 'release' then
  if mine then redis.call('DEL', KEYS[1]) end
  return mine and 1 or 0
end
if not mine and ARGV[1] == 'renew' then return 0 end
if owner and not mine then return -math.max(1, redis.call('PTTL', KEYS[1])) end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
if not mine then redis.call('INCR', KEYS[2]) end
redis.call('EXPIRE', KEYS[2], KEEP_S)
return tonumber(redis.call('GET', KEYS[2])) or redis.call('INCR', KEYS[2])
