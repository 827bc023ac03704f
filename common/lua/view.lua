-- Who rebuilds the view after Redis lost its data, and the mark that it is whole.
-- KEYS: td:{view} (the mark), td:{view}:lease   ARGV: take | publish, owner, lease ms, mark
-- take: 3 ours now, 1 ours still, 0 somebody else builds, 2 the view is whole.   publish: 1 marked; 0 the lease was lost, be it
-- because Redis lost its data once more: begin again.
if ARGV[1] == 'take' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 2 end
  local owner = redis.call('GET', KEYS[2])
  if owner and owner ~= ARGV[2] then return 0 end
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  return owner and 1 or 3
end
if redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[4])
redis.call('DEL', KEYS[2])
return 1
