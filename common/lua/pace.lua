-- The generic cell rate algorithm with burst 1, shared: hands out consecutive future slots of one relay.
-- Unused time is never saved up, so no burst follows a pause. The same arithmetic as td_gcra_take.
-- KEYS: td:{r:<relay>}:tat (theoretical arrival time, us, and the last turn given, us),
--   td:{r:<relay>}:quota (hash: five-minute bucket -> mails),
--   td:{r:<relay>}:members (hash: who paces here -> when last heard, ms, and its part of all lanes)
-- ARGV: mails per second (safety and busy factor already in it), want, horizon us, daily quota (0 none), me, mails sent
--   while Redis was away, my part of all lanes (0..1); now (us) in tests only
-- Reply: slots, us until the first one, us between them, why none ("rate", "quota", ""), us until it is worth asking
--   again, members, what is left of the quota (-1: none known), the server's clock (us)
-- A member gets at most its share of the horizon at once, so that one cannot take all of every turn. Where that is less than
-- two slots (a low rate, many members) all would ask for each slot, and all but one in vain: each is told its turn, one slot
-- behind the one told before. Turns that nobody took up leave the next ones two slots, until the lead is as it should be.
local BUCKET_S, BUCKETS = 300, 288 -- 24 h
local MEMBER_MS = 10000
-- Lanes whose dispatcher was not heard for this long may be served without Redis, at 0.8 of their part of the rate (pace.c): that is kept
-- free for it, until it is heard again or others have its lanes.
local HEARD_MS, ALONE = 600, 0.8
local CLOCK_BACK_US = 10000000
local EARLY_US = 10000 -- a turn taken up a little early is not lost
local time = redis.call('TIME')
local now = ARGV[8] and tonumber(ARGV[8]) or time[1] * 1000000 + time[2]
local sec = math.floor(now / 1000000)
local want, horizon, quota = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local ms, members, lanes = math.floor(now / 1000), 0, 0
redis.call('HSET', KEYS[3], ARGV[5], string.format('%.0f %s', ms, ARGV[7]))
redis.call('EXPIRE', KEYS[3], 60)
local seen = redis.call('HGETALL', KEYS[3])
for k = 1, #seen, 2 do
  local at, part = string.match(seen[k + 1], '^(%d+) ([%d.]+)$')
  local ago = ms - (at or 0)
  if math.abs(ago) > MEMBER_MS then redis.call('HDEL', KEYS[3], seen[k]) else
    members = members + 1
    if ago <= HEARD_MS then lanes = lanes + part end
  end
end
local unheard = lanes > 0.999 and 0 or 1 - lanes
local apart = 1000000 / (ARGV[1] * (1 - ALONE * unheard))

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

local tat, turn = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
tat, turn = math.max(tonumber(tat or 0), now), tonumber(turn or 0)
if tat > now + horizon + apart + CLOCK_BACK_US then tat = now end -- the server's clock was set back
local crowded = members > 1 and horizon / apart < 2 * members
local reach = now + horizon + (crowded and EARLY_US or 0)
local function save()
  redis.call('SET', KEYS[1], string.format('%.0f %.0f', math.ceil(tat), turn), 'PX', 120000)
end
-- In how many us to ask again; 0: whenever there is need.
local function next_turn()
  if not crowded then return 0 end
  local free = math.max(now, tat - horizon)
  turn = math.min(math.max(turn + apart, free), free + members * apart)
  return turn - now
end
if tat > reach then
  local again = crowded and next_turn() or tat - now - horizon
  if crowded then save() end
  return reply(0, 0, 'rate', again)
end
local share = crowded and (tat < now + horizon / 2 and 2 or 1) or math.max(1, math.ceil(horizon / apart / members))
local n = math.min(want, math.floor((reach - tat) / apart) + 1, share)
if left > 0 then n = math.min(n, left) end
local first = tat - now
tat = tat + n * apart
local again = next_turn()
save()
redis.call('HINCRBY', KEYS[2], bucket, n)
redis.call('EXPIRE', KEYS[2], BUCKET_S * (BUCKETS + 2))
if left > 0 then left = left - n end
return reply(n, first, '', again)
