-- These mails have their outcome. Counted only when `done` changes from 0, so a repeated call changes nothing.
-- KEYS: done, totals, pending, hours, doubt, evidence   ARGV: keep s, then for each mail: index, result, relay ("" = none),
--   packed outcome
-- result: a field of totals; or "unproven", which is "unconfirmed" unless a relay has told that it took the mail
--   (ledger_note.lua): then it does not end here, and is among the others of the reply.
--   relay: of an accepted mail, and of one that is refused because the address takes no mail at all ("refused:<relay>": the
--   campaign's ceiling counts these as it counts hard bounces).
-- hours: what each relay took ("a") and what bounced hard there ("h", such refusals included), by the hour since 1970, for the
--   bounce rate of the whole relay (relay_count.lua). It says what this campaign has; so telling it twice adds nothing.
-- Reply: how many were new, an array of what has grown in hours ("<relay> <hour> a|h <value>"), then the places in the call
--   (from 0) of those that had ended with another outcome before, or are proven.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local HOURS_KEEP_S = 26 * 3600
local hour = math.floor(redis.call('TIME')[1] / 3600)
local reply = {0, {}}
local sums, hours = {}, {}
local open = redis.call('EXISTS', KEYS[5], KEYS[6]) > 0
local function in_hour(relay, kind)
  local field = relay .. ' ' .. hour .. ' ' .. kind
  hours[field] = (hours[field] or 0) + 1
end
for at = 2, #ARGV, 4 do
  local i, result, relay = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local proven = result == 'unproven' and open and redis.call('HEXISTS', KEYS[6], i) == 1
  if result == 'unproven' then result = 'unconfirmed' end
  if proven and redis.call('GETBIT', KEYS[1], i) == 0 then
    reply[#reply + 1] = (at - 2) / 4
  elseif redis.call('SETBIT', KEYS[1], i, 1) == 0 then
    reply[1] = reply[1] + 1
    sums[result] = (sums[result] or 0) + 1
    if relay ~= '' and (result == 'accepted' or result == 'refused') then
      local field = result .. ':' .. relay
      sums[field] = (sums[field] or 0) + 1
      in_hour(relay, 'a')
      if result == 'refused' then in_hour(relay, 'h') end
    end
    redis.call('HSET', KEYS[3], i, ARGV[at + 3])
    if open then
      redis.call('HDEL', KEYS[5], i)
      redis.call('HDEL', KEYS[6], i)
    end
  elseif redis.call('HGET', KEYS[3], i) ~= ARGV[at + 3] then
    reply[#reply + 1] = (at - 2) / 4
  end
end
for field, count in pairs(sums) do redis.call('HINCRBY', KEYS[2], field, count) end
for field, count in pairs(hours) do
  table.insert(reply[2], field .. ' ' .. redis.call('HINCRBY', KEYS[4], field, count))
  redis.call('EXPIRE', KEYS[4], HOURS_KEEP_S)
end
for k = 1, 3 do redis.call('EXPIRE', KEYS[k], ARGV[1]) end
return reply
