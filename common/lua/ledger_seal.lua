-- No more recipients will come.   KEYS: totals   ARGV: count, keep s
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
redis.call('HSET', KEYS[1], 'count', ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])
