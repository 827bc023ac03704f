-- A bounce of an accepted mail, counted once a recipient; a hard one takes the place of a soft one or a block.
-- KEYS: bounced (2 bits a recipient: 0 none, 1 soft, 2 block, 3 hard), totals, hours   ARGV: index, class, relay, keep s
-- A hard one is booked to the latest of the last 24 hours in which the relay took mail of this campaign, so that it leaves the
--   relay's window with what it is a share of. With none it is too late for the window, unless nothing of this campaign is known
--   to be accepted there at all: then it has overtaken the outcome of its own mail, and this hour it is.
-- Reply: 1 when counted now; then an array of what the campaign has in hours (ledger_end.lua), whether counted now or before:
--   who asks again may not have told the relay yet.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local NUMBER = {soft = 1, block = 2, hard = 3}
local NAME = {'soft', 'block', 'hard'}
local HOURS, HOURS_KEEP_S = 24, 26 * 3600
local new, relay = NUMBER[ARGV[2]], ARGV[3]
if not new then return redis.error_reply('ERR unknown class') end

local function in_hours(counted)
  local now, fields, told = math.floor(redis.call('TIME')[1] / 3600), {}, {}
  for k = 0, HOURS - 1 do
    fields[2 * k + 1] = relay .. ' ' .. (now - k) .. ' a'
    fields[2 * k + 2] = relay .. ' ' .. (now - k) .. ' h'
  end
  local value = redis.call('HMGET', KEYS[3], unpack(fields))
  local early = counted and not redis.call('HGET', KEYS[2], 'accepted:' .. relay)
  for k = 1, 2 * HOURS, 2 do
    if counted and (value[k] or early) then
      counted = false
      value[k + 1] = redis.call('HINCRBY', KEYS[3], fields[k + 1], 1)
      redis.call('EXPIRE', KEYS[3], HOURS_KEEP_S)
    end
    if value[k + 1] then told[#told + 1] = fields[k + 1] .. ' ' .. value[k + 1] end
  end
  return told
end

local old = redis.call('BITFIELD', KEYS[1], 'GET', 'u2', '#' .. ARGV[1])[1]
if old == 3 or (old > 0 and new < 3) then return {0, new == 3 and in_hours(false) or {}} end
redis.call('BITFIELD', KEYS[1], 'SET', 'u2', '#' .. ARGV[1], new)
if old > 0 then redis.call('HINCRBY', KEYS[2], NAME[old] .. ':' .. relay, -1) end
redis.call('HINCRBY', KEYS[2], ARGV[2] .. ':' .. relay, 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return {1, new == 3 and in_hours(true) or {}}
