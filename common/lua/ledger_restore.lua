-- What topics say about recipients of one campaign, merged into what is there: each bit is set and counted once, whoever
-- sets it first. Works on a Redis whose view is not whole; that is what it is for.
-- KEYS: seen, addr, done, bounced, totals, hours   ARGV: keep s, sealed count ("" = not known), then for each fact: index,
--   what, relay, address hash ("" = none), hour since 1970
--   what: "" it was taken in; "hard", "soft" or "block": it bounced; else its result ("accepted", "refused", ...)
-- Reply: how many facts were new, and an array of what the campaign has in the hours that they are of (ledger_end.lua).
local NUMBER = {soft = 1, block = 2, hard = 3}
local NAME = {'soft', 'block', 'hard'}
local new, sums = 0, {}
local function add(field, n) sums[field] = (sums[field] or 0) + n end

-- As ledger_end.lua and bounce_count.lua count, by the hours in which it happened.
local HOURS, HOURS_KEEP_S = 24, 26 * 3600
local now = math.floor(redis.call('TIME')[1] / 3600)
local hours, took = {}, {}
local function in_hour(relay, hour, kind, n)
  if hour <= now - HOURS or hour > now + 1 then return end
  local field = relay .. ' ' .. hour .. ' ' .. kind
  hours[field] = (hours[field] or 0) + n
  if kind == 'a' and took[relay] and hour > took[relay] then took[relay] = hour end
end
local function latest(relay, hour_told) -- the last hour in which it took mail of this campaign, 0 when none
  local known = sums['accepted:' .. relay] or redis.call('HGET', KEYS[5], 'accepted:' .. relay)
  if not known then return hour_told end
  if not took[relay] then
    took[relay] = 0
    for hour = now + 1, now - HOURS + 1, -1 do
      local field = relay .. ' ' .. hour .. ' a'
      if hours[field] or redis.call('HEXISTS', KEYS[6], field) == 1 then took[relay] = hour; break end
    end
  end
  return took[relay]
end

local function take_in(i, hash)
  if redis.call('SETBIT', KEYS[1], i, 1) == 1 then return false end
  add('submitted', 1)
  if #hash == 16 then redis.call('SETRANGE', KEYS[2], string.format('%.0f', i * 16), hash) end
  return true
end

local function finish(i, result, relay, hour)
  if redis.call('SETBIT', KEYS[3], i, 1) == 1 then return false end
  add(result, 1)
  if relay ~= '' and (result == 'accepted' or result == 'refused') then
    add(result .. ':' .. relay, 1)
    in_hour(relay, hour, 'a', 1)
    if result == 'refused' then in_hour(relay, hour, 'h', 1) end
  end
  return true
end

local function bounce(i, class, relay, hour) -- as bounce_count.lua
  local number = NUMBER[class]
  local old = redis.call('BITFIELD', KEYS[4], 'GET', 'u2', '#' .. i)[1]
  if old == 3 or (old > 0 and number < 3) then return false end
  redis.call('BITFIELD', KEYS[4], 'SET', 'u2', '#' .. i, number)
  if old > 0 then add(NAME[old] .. ':' .. relay, -1) end
  add(class .. ':' .. relay, 1)
  if number == 3 then in_hour(relay, latest(relay, hour), 'h', 1) end
  return true
end

for at = 3, #ARGV, 5 do
  local i, what, relay, hash, hour = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], tonumber(ARGV[at + 4])
  local is_new
  if NUMBER[what] then is_new = bounce(i, what, relay, hour)
  else
    is_new = take_in(i, hash)
    if what ~= '' then is_new = finish(i, what, relay, hour) end
  end
  if is_new then new = new + 1 end
end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[5], 'count', ARGV[2]) end
for field, n in pairs(sums) do redis.call('HINCRBY', KEYS[5], field, n) end
for k = 1, 5 do redis.call('EXPIRE', KEYS[k], ARGV[1]) end
local told = {}
for field, n in pairs(hours) do
  told[#told + 1] = field .. ' ' .. redis.call('HINCRBY', KEYS[6], field, n)
  redis.call('EXPIRE', KEYS[6], HOURS_KEEP_S)
end
return {new, told}
