-- This mail may have been sent and nobody knows: from now on evidence ends it, whoever brings it. Leaves `tried` set.
-- KEYS: tried, done, pending, doubt (hash: index -> the relay that may have it, "" = not known), evidence
-- ARGV: index, relay, keep s
-- Reply: one of these, and an outcome, "" when there is none:
--   2 it is in doubt now, or was before, and keeps the relay that was named then;
--   1 it has its outcome, and this one mail.outcomes may lack;
--   3 a relay has told already that it took it (ledger_note.lua): end it with this outcome.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local i = ARGV[1]
if redis.call('GETBIT', KEYS[2], i) == 1 then return {1, redis.call('HGET', KEYS[3], i) or ''} end
redis.call('SETBIT', KEYS[1], i, 1)
redis.call('EXPIRE', KEYS[1], ARGV[3])
local proof = redis.call('HGET', KEYS[5], i)
if proof then return {3, proof} end
if ARGV[2] ~= '' or redis.call('HEXISTS', KEYS[4], i) == 0 then redis.call('HSET', KEYS[4], i, ARGV[2]) end
redis.call('EXPIRE', KEYS[4], ARGV[3])
return {2, ''}
