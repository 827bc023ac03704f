-- The generic cell rate algorithm with burst 1, shared: hands out consecutive future slots of one relay.
-- Unused time is never saved up, so no burst follows a pause. The same arithmetic as td_gcra_take.
-- KEYS: td:{r:<relay>}:tat (theoretical arrival time, us), td:{r:<relay>}:quota (hash: five-minute bucket -> mails),
--   td:{r:<relay>}:members (who paces here, by when last seen)
-- ARGV: mails per second (safety and busy factor already in it), want, horizon us, daily quota (0 none), me, mails sent
--   while Redis was away; now (us) in tests only
-- Reply: slots, us until the first one, us between them, why none ("rate", "quota", ""), us until it is worth asking
--   again, members, what is left of the quota (-1: none known), the server's clock (us)
-- A member gets at most its share of the horizon at once, so that one cannot take all of every turn.
local BUCKET_S, BUCKETS = 300, 288 -- 24 h
local MEMBER_S = 10
local CLOCK_BACK_US = 10000000
local time = redis.call('TIME')
local now = ARGV[7] and tonumber(ARGV[7]) or time[1] * 1000000 + time[2]
local sec = math.floor(now / 1000000)
local apart, want, horizon, quota = 1000000 / ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

redis.call('ZADD', KEYS[3], sec, ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', sec - MEMBER_S)
redis.call('EXPIRE', KEYS[3], 60)
local members = math.max(1, redis.call('ZCARD', KEYS[3]))

local bucket, used = math.floor(sec / BUCKET_S), 0
if tonumber(ARGV[6]) > 0 then redis.call('HINCRBY', KEYS[2], bucket, ARGV[6]) end
if quota > 0 then
  local all = redis.call('HGETALL', KEYS[2])
  for k = 1, #all, 2 do
    if tonumber(all[k]) <= bucket - BUCKETS - 1 then redis.call('HDEL', KEYS[2], all[k]) else used = used + tonumber(all[k + 1]) end
  end
end
local left = quota > 0 and math.max(0, quota - used) or -1
local function reply(n, first, why, again)
  return {n, string.format('%.0f', first), string.format('%.0f', apart), why, string.format('%.0f', again), members,
    string.format('%.0f', left), string.format('%.0f', now)}
end
if want <= 0 then return reply(0, 0, '', 0) end
if left == 0 then return reply(0, 0, 'quota', 60000000) end

local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
if tat > now + horizon + apart + CLOCK_BACK_US then tat = now end -- the server's clock was set back
if tat > now + horizon then return reply(0, 0, 'rate', tat - now - horizon) end
local n = math.floor((now + horizon - tat) / apart) + 1
n = math.min(want, n, math.max(1, math.ceil(horizon / apart / members)))
if left > 0 then n = math.min(n, left) end
redis.call('SET', KEYS[1], string.format('%.0f', math.ceil(tat + n * apart)), 'PX', 120000)
redis.call('HINCRBY', KEYS[2], bucket, n)
redis.call('EXPIRE', KEYS[2], BUCKET_S * (BUCKETS + 2))
if left > 0 then left = left - n end
return reply(n, tat - now, '', 0)
