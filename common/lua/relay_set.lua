-- What operators say about a relay. drain: no new mail until enable. pause: the same for a time. enable: trust it again,
-- by way of probes and a few mails; past failures are forgiven, and what bounced before counts no more: bulk may use it in full,
-- and the bounce rate is counted anew from now on. `untold` makes the next dispatcher that reports tell of it.
-- KEYS: td:{r:<relay>}:state, td:{r:<relay>}:hours   ARGV: drain | pause | enable, ms (pause), now (ms; in tests only)
-- Reply: state, epoch, reason.
local time = redis.call('TIME')
local now = ARGV[3] and tonumber(ARGV[3]) or time[1] * 1000 + math.floor(time[2] / 1000)
local h = redis.call('HMGET', KEYS[1], 'st', 'ep', 'reason')
local from, epoch, reason = h[1] or 'closed', tonumber(h[2] or 0), h[3] or 'well.start'
local to, fields = from, {}
if ARGV[1] == 'drain' or ARGV[1] == 'pause' then
  local till = ARGV[1] == 'pause' and now + tonumber(ARGV[2]) or 0
  to, reason = 'paused', 'operator.' .. ARGV[1]
  fields = {'by', 'operator', 'till', string.format('%.0f', till)}
elseif ARGV[1] == 'enable' then
  if from ~= 'closed' and from ~= 'limited' then
    to, reason = 'half-open', 'operator.enable'
    fields = {'by', '', 'till', '0', 'probes', '0', 'probe_until', '0', 'wins', '0', 'used', '0', 'granted', '0',
      'overload', '0', 'half_at', string.format('%.0f', now)}
  end
  redis.call('HSET', KEYS[1], 'opens', '0', 'relapses', '0')
  redis.call('DEL', KEYS[2]) -- what each campaign told stays, so only what comes from now on is added
  local level = redis.call('HGET', KEYS[1], 'level') or '0'
  if level ~= '0' then
    redis.call('HSET', KEYS[1], 'level', '0', 'level_was', level, 'level_untold', '1', 'bounce_size', '0', 'bounce_hard', '0',
      'bounce_taken', '0', 'bounces', 'an operator lets bulk use it again; counted anew')
    redis.call('PUBLISH', 'td:relays', string.format('relay=%s level=0', string.match(KEYS[1], '{r:(.-)}') or ''))
  end
else
  return redis.error_reply('ERR drain, pause or enable')
end
if to ~= from or #fields > 0 then
  epoch = epoch + 1
  redis.call('HSET', KEYS[1], 'st', to, 'ep', string.format('%.0f', epoch), 'reason', reason, 'evidence', 'an operator', 'factor', '1',
    'untold', '1', unpack(fields))
  redis.call('EXPIRE', KEYS[1], 30 * 86400)
  redis.call('PUBLISH', 'td:relays', string.format('relay=%s from=%s to=%s epoch=%.0f reason=%s evidence="an operator"',
    string.match(KEYS[1], '{r:(.-)}') or '', from, to, epoch, reason))
end
return {to, string.format('%.0f', epoch), reason}
