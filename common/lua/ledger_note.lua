-- A relay tells that it took this mail, which has no outcome. Who has it under way will say so, too, perhaps without the ledger:
-- so it is not ended here, and the proof is kept for whoever finds it in doubt.
-- KEYS: done, doubt, evidence (hash: index -> packed outcome)   ARGV: index, packed outcome, keep s
-- Reply: 0 kept (or one before it); 1 it has its outcome; 2 it is in doubt: end it.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local i = ARGV[1]
if redis.call('GETBIT', KEYS[1], i) == 1 then return 1 end
if redis.call('HEXISTS', KEYS[2], i) == 1 then return 2 end
redis.call('HSETNX', KEYS[3], i, ARGV[2])
redis.call('EXPIRE', KEYS[3], ARGV[3])
return 0
