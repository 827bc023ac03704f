-- Has this mail its outcome, and does mail.outcomes have it, as far as is known?
-- KEYS: done, pending, doubt   ARGV: index
-- Reply: 1 or 0; the pending outcome, "" when there is none (mail.outcomes has it, or there is no outcome); 1 when it is in
--   doubt (ledger_doubt.lua), else 0.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
return {redis.call('GETBIT', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[2], ARGV[1]) or '',
        redis.call('HEXISTS', KEYS[3], ARGV[1])}
