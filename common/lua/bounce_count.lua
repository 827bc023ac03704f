-- A bounce of an accepted mail, counted once a recipient; a hard one takes the place of a soft one or a block.
-- KEYS: bounced (2 bits a recipient: 0 none, 1 soft, 2 block, 3 hard), totals   ARGV: index, class, relay, keep s
-- Reply: 1 when counted now.
if redis.pcall('EXISTS', 'td:{view}') == 0 then return redis.error_reply('NOVIEW the view is not whole') end -- see ledger_begin.lua
local NUMBER = {soft = 1, block = 2, hard = 3}
local NAME = {'soft', 'block', 'hard'}
local new = NUMBER[ARGV[2]]
if not new then return redis.error_reply('ERR unknown class') end
local old = redis.call('BITFIELD', KEYS[1], 'GET', 'u2', '#' .. ARGV[1])[1]
if old == 3 or (old > 0 and new < 3) then return 0 end
redis.call('BITFIELD', KEYS[1], 'SET', 'u2', '#' .. ARGV[1], new)
if old > 0 then redis.call('HINCRBY', KEYS[2], NAME[old] .. ':' .. ARGV[3], -1) end
redis.call('HINCRBY', KEYS[2], ARGV[2] .. ':' .. ARGV[3], 1)
redis.call('EXPIRE', KEYS[1], ARGV[4])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
