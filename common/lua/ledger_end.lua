-- These mails have their outcome. Counted only when `done` changes from 0, so a repeated call changes nothing.
-- KEYS: done, totals, pending   ARGV: keep s, then for each mail: index, result, relay ("" = none), packed outcome
-- Reply: how many were new, then the places in the call (from 0) of those that had ended with another outcome before.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local reply = {0}
local sums = {}
for at = 2, #ARGV, 4 do
  local i, result, relay = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  if redis.call('SETBIT', KEYS[1], i, 1) == 0 then
    reply[1] = reply[1] + 1
    sums[result] = (sums[result] or 0) + 1
    if result == 'accepted' and relay ~= '' then
      local field = 'accepted:' .. relay
      sums[field] = (sums[field] or 0) + 1
    end
    redis.call('HSET', KEYS[3], i, ARGV[at + 3])
  elseif redis.call('HGET', KEYS[3], i) ~= ARGV[at + 3] then
    reply[#reply + 1] = (at - 2) / 4
  end
end
for field, count in pairs(sums) do redis.call('HINCRBY', KEYS[2], field, count) end
for k = 1, 3 do redis.call('EXPIRE', KEYS[k], ARGV[1]) end
return reply
