-- May these mails be handed over? Sets `tried` of those that may.
-- KEYS: tried, done, pending, begun, evidence   ARGV: indices (u32 little-endian each), keep s, token
-- begun is td:{c:X}:begun:<token>: a call whose answer was lost is asked again with its token and answered as before;
-- without it the caller would meet its own `tried` bits and could not tell them from a dead owner's. "" = no token.
-- Reply: one character a mail (0 GO, 1 DONE, 2 TRIED, 3 PROVEN), then in order for each DONE its pending outcome, "" when
--   published, and for each PROVEN the outcome that ledger_note.lua has kept.
-- A Redis that lost its data says so by the key's absence: a FLUSHALL cuts no connection. In a Redis Cluster the key is on
-- another node and this says nothing (pcall); clients then look at it once a second.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end
local BEGUN_S = 600
local proofs = redis.call('EXISTS', KEYS[5]) == 1
local verdicts = ARGV[3] ~= '' and redis.call('GET', KEYS[4])
local reply = {''}
local out = {}
for at = 1, #ARGV[1], 4 do
  local i = struct.unpack('<I4', ARGV[1], at)
  local n = (at + 3) / 4
  local verdict
  local proof = proofs and redis.call('HGET', KEYS[5], i)
  if redis.call('GETBIT', KEYS[2], i) == 1 then
    verdict = '1'
    reply[#reply + 1] = redis.call('HGET', KEYS[3], i) or ''
  elseif proof then
    verdict = '3'
    reply[#reply + 1] = proof
  elseif verdicts then
    verdict = string.sub(verdicts, n, n)
    if verdict == '1' or verdict == '3' then verdict = '2' end -- cannot be: neither goes without `done`; be careful all the same
  else
    verdict = redis.call('SETBIT', KEYS[1], i, 1) == 1 and '2' or '0'
  end
  out[n] = verdict
end
reply[1] = table.concat(out)
if ARGV[3] ~= '' and not verdicts then redis.call('SET', KEYS[4], reply[1], 'EX', BEGUN_S) end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return reply
