-- Has this mail its outcome, and does mail.outcomes have it, as far as is known?
-- KEYS: done, pending   ARGV: index
-- Reply: 1 or 0, and the pending outcome, "" when there is none (mail.outcomes has it, or there is no outcome).
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
return {redis.call('GETBIT', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[1]) or ''}
