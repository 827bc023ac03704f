-- No more recipients will come.   KEYS: totals   ARGV: count, keep s
redis.call('HSET', KEYS[1], 'count', ARGV[1])
return redis.call('EXPIRE', KEYS[1], ARGV[2])
