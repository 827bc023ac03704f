-- The one place where a relay's shared state changes (relay_set.lua for operators besides). Every dispatcher reports what
-- it counted and gets the state back; a call with zero counts only reads and lets time pass.
--
--   closed --busy--> limited --busy at the floor for 30 s--> open      closed, limited -- down --> open
--     ^ ^--rate is back--'                                    | time    open, half-open, closed, limited
--     '--ramp-- half-open <-----------------------------------'             -- quota used up --> exhausted
--                  '-- any failure --> open, for longer                     -- account paused --> paused
--
-- DOWN, from closed or limited, whichever comes first:
--   fatal evidence                                                                       -> at once
--   a refused connection while nothing was accepted in the last second, fleet-wide       -> at once
--   a silence (nothing comes from it, a probe of the caller's was not answered either) since the beginning of which nobody in
--     the fleet was served, or for a second; while others are served it is the caller's own way there, and stays its own  -> open
--   3 connection failures (connect, TLS, banner, DNS, AUTH, reset) in a row within 5 s, fleet-wide, no success between:
--     failover takes well under a second at low traffic too, where no rate has a meaning -> open
--   Wilson 95 % lower bound of hard/all > 0.30 with n >= 20 in 30 s                      -> open
--   tarpit: more than 5 % (so p95) of >= 20 final replies in 30 s took over 10 s: each slow one counts as hard in that
--     bound, and as busy
-- OPEN waits probe_ms x 2^(opens - 1), at most probe_max_ms, +-10 %. Then HALF-OPEN: one process holds the fleet's probe
--   (no mail, lease 5 s); after 2 good ones mails are granted, 5 a second fleet-wide; 20 accepted, or at least 3 over
--   3 s, or a minute in which nobody had mail for it, close it; its share of mail then grows from 10 % to all.
--   With no relay fit at all (hold = 1) mails wait and a probe costs none of them: then it is tried every 2 s, which makes
--   no later wait longer.
--   opens goes down by 1 for every 10 healthy minutes.
-- FLAPPING: a failure within 60 s of closing is a relapse; each doubles the wait again, up to 10 minutes whatever
--   probe_max_ms is, and is forgiven as opens is. 10 s up, 10 s down for 30 min: at most 12 switches (test_health.c).
-- BUSY cuts the rate factor x 0.7, at most every 500 ms; it creeps back 2 % of full rate a second.
-- Every change raises the epoch; counts that carry another epoch are about another state and are ignored.
-- Redis lost its data (no hash, but the caller knows an epoch): start from what the caller last knew; a relay thought
--   well starts with the ramp.
--
-- BOUNCES, beside the state and whatever it is: level 0 well, 1 warn, 2 throttle (bulk gets a part of the relay), 3 stop (bulk
--   leaves it). Hard bounces of all campaigns against mails taken, in hours of which the last 24 count. Up, by one or more levels:
--   the Wilson 95 % lower bound is above that level's threshold, n >= 500. Down, one level at a time, each held for 15 minutes at
--   least: the share itself is below three quarters of the level's threshold, or n has fallen below 500. Looked at when the
--   evidence has grown by a tenth (100 mails at least; a bounce weighs as 20), or after 10 s: each look is one more chance to be
--   wrong about a good list.
--
-- KEYS: td:{r:<relay>}:state (hash), td:{r:<relay>}:window (hash of 30 one-second buckets), td:{r:<relay>}:hours (hash, see
--   relay_count.lua)
-- ARGV: name, value, name, value ... me, epoch, state (the caller's, with its reason), ok, hard, soft, fatal, exhausted,
--   paused (counts), row (connection failures since the caller's last success), refused (of those), ok_ago (ms since the last of
--   ok), silent (ms for which the caller has heard nothing from a relay that it found silent; 0: it is not, or since long),
--   latencies, slow (final replies timed, those over 10 s), reason (of the worst), want (mails it could try), used (grants used), can (1: could
--   probe), probe (well | bad), hold (1: no relay is fit), probe_epoch, probe_ms, probe_max_ms, ramp_ms, random (0..1),
--   bounce_warn, bounce_throttle, bounce_stop (per 10,000); now (ms) in tests only
-- Reply: state, epoch, share, factor, grants, probe (1: go), next change (Unix ms, 0 none), reason, evidence, changed (1:
--   by this call, or by an operator and this caller is to tell of it), server's time (ms), bounce level, in words, level before
--   (another one: this caller is to tell of it), hard bounces, mails taken
local MIN_N, LOWER, Z, WINDOW_S = 20, 0.30, 1.96, 30
local ROW, ROW_MS, QUIET_MS = 3, 5000, 1000
local SLOW_N, SLOW_SHARE = 20, 0.05
local OPENS_MAX, RELAPSE_MS, RELAPSE_MAX_MS, FORGIVE_MS = 16, 60000, 600000, 600000
local PROBES, PROBE_LEASE_MS, GRANTS_PER_S = 2, 5000, 5
local HOLD_MS = 2000
local WINS, FEW, FEW_MS, IDLE_MS, RAMP_FIRST = 20, 3, 3000, 60000, 0.10
local CUT, CUT_MS, CREEP_PER_S, FLOOR, FLOOR_MS, OFF_FLOOR = 0.7, 500, 0.02, 0.05, 30000, 0.15
local EXHAUSTED_MS, RARE_MS = 3600000, 600000
local BOUNCE_N, BOUNCE_HOURS, BOUNCE_DWELL_MS, BOUNCE_LOOK_MS, BOUNCE_FELL, BOUNCE_WEIGHT = 500, 24, 900000, 10000, 0.75, 20
local KEEP_S = 30 * 86400

local a = {}
for k = 1, #ARGV, 2 do a[ARGV[k]] = ARGV[k + 1] end
local function arg(name) return tonumber(a[name] or 0) or 0 end
local time = redis.call('TIME')
local now = a.now and tonumber(a.now) or time[1] * 1000 + math.floor(time[2] / 1000)
local sec = math.floor(now / 1000)

local h, before = {}, {}
local raw = redis.call('HGETALL', KEYS[1])
for k = 1, #raw, 2 do h[raw[k]] = raw[k + 1]; before[raw[k]] = raw[k + 1] end
local function num(name) return tonumber(h[name] or 0) or 0 end
local function set(name, value)
  if type(value) == 'number' then value = string.format(name == 'factor' and '%.6f' or '%.0f', value) end
  h[name] = value
end

local function clean(text) return (string.gsub(text or '', '[^%w%._%-]', '')) end
local grants, probe, changed, from = 0, 0, 0, h.st

local function move(to, reason, evidence)
  if h.st ~= to then set('ep', num('ep') + 1); changed = 1 end
  h.st, h.reason, h.evidence = to, reason, evidence or ''
end

local function open(reason, evidence)
  if (h.st == 'closed' or h.st == 'limited') and num('closed_at') > 0 and now - num('closed_at') < RELAPSE_MS then
    set('relapses', math.min(num('relapses') + 1, OPENS_MAX))
  end
  if h.eager ~= '1' then set('opens', math.min(num('opens') + 1, OPENS_MAX)) end
  local wait = math.min(arg('probe_ms') * 2 ^ (num('opens') - 1), arg('probe_max_ms'))
  if num('relapses') > 0 then wait = math.max(wait, math.min(wait * 2 ^ num('relapses'), RELAPSE_MAX_MS)) end
  set('till', now + wait * (0.9 + 0.2 * arg('random')))
  if h.eager == '1' and num('due') > now then set('till', num('due')) end -- as planned, had it not been tried early
  h.eager = '0'
  set('opened_at', now)
  h.row, h.floor_at = '', '0'
  set('factor', 1)
  redis.call('DEL', KEYS[2])
  move('open', reason, evidence)
end

local function half(skip_probes, evidence)
  h.eager = h.st == 'open' and num('till') > now and '1' or '0'
  h.due = h.till
  set('probes', skip_probes and PROBES or 0)
  h.probe_until, h.wins, h.used, h.granted, h.till = '0', '0', '0', '0', '0'
  h.overload = string.sub(h.reason or '', 1, 10) == 'overloaded' and '1' or '0'
  set('half_at', now)
  move('half-open', 'well.probing', evidence)
end

local function close()
  set('closed_at', now)
  set('healthy_at', now)
  set('factor', 1)
  h.row, h.floor_at, h.till = '', '0', '0'
  redis.call('DEL', KEYS[2])
  move('closed', 'well.ramp', string.format('%d probes and %d mails went well', num('probes'), num('wins')))
end

local function set_aside(state, till)
  set('till', till)
  set('next_mail', now + RARE_MS)
  h.granted, h.by = '0', 'account'
  move(state, clean(a.reason), 'the relay said so')
end

-- First sight, or Redis has lost its data.
if not h.st then
  set('ep', arg('epoch') + 1)
  h.st, h.reason, h.evidence = 'closed', 'well.start', ''
  set('factor', 1)
  if arg('epoch') > 0 then
    h.reason = clean(a.reason)
    if a.state == 'open' or a.state == 'half-open' then open(h.reason, 'known before Redis lost its data')
    elseif a.state == 'exhausted' then set_aside('exhausted', now + EXHAUSTED_MS)
    elseif a.state == 'paused' then
      set_aside('paused', 0)
      if string.sub(h.reason, 1, 8) == 'operator' then h.by = 'operator' end
    else set('closed_at', now) end
  end
  from = h.st
end

-- Before counts are looked at: what was counted while it was open says nothing about the trial that begins now.
if h.st == 'open' then
  local longest = math.max(arg('probe_max_ms'), RELAPSE_MAX_MS) * 1.1
  if now >= num('till') or num('till') > now + longest then half(false, 'the wait is over') -- or a clock was set back
  elseif arg('hold') == 1 and now - num('opened_at') >= HOLD_MS then half(false, 'no relay is fit: tried early') end
end

local current = arg('epoch') == num('ep')
local function count(name) return current and arg(name) or 0 end
local ok, hard, soft, fatal = count('ok'), count('hard'), count('soft'), count('fatal')

-- Sums of the window with these counts added: ok, hard, soft, latencies, slow.
local function window()
  local add = {ok, hard, soft, count('latencies'), count('slow')}
  local sum = {0, 0, 0, 0, 0}
  if ok + hard + soft + add[4] == 0 then return sum end
  local own = tostring(sec % WINDOW_S)
  local all = redis.call('HGETALL', KEYS[2])
  local function fields(text)
    local v = {}
    for n in string.gmatch(text, '%d+') do v[#v + 1] = tonumber(n) end
    return v
  end
  for k = 1, #all, 2 do
    local v = fields(all[k + 1])
    if sec - v[1] < WINDOW_S and v[1] <= sec then
      for j = 1, 5 do
        sum[j] = sum[j] + v[j + 1]
        if all[k] == own then add[j] = add[j] + v[j + 1] end
      end
    end
  end
  redis.call('HSET', KEYS[2], own, string.format('%.0f %d %d %d %d %d', sec, add[1], add[2], add[3], add[4], add[5]))
  redis.call('EXPIRE', KEYS[2], 2 * WINDOW_S)
  sum[1], sum[2], sum[3] = sum[1] + ok, sum[2] + hard, sum[3] + soft
  sum[4], sum[5] = sum[4] + count('latencies'), sum[5] + count('slow')
  return sum
end

-- Connection failures in a row, fleet-wide: how many within ROW_MS.
local function row()
  if ok > 0 then h.row = ''; set('last_ok', math.max(num('last_ok'), now - arg('ok_ago'))) end
  local times = {}
  for t in string.gmatch(h.row or '', '%d+') do
    if now - tonumber(t) <= ROW_MS then times[#times + 1] = t end
  end
  for _ = 1, math.min(count('row'), ROW) do times[#times + 1] = string.format('%.0f', now) end
  while #times > ROW do table.remove(times, 1) end
  h.row = table.concat(times, ' ')
  return #times
end

local function lower_bound(hits, n)
  local p = hits / n
  return (p + Z * Z / (2 * n) - Z * math.sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))) / (1 + Z * Z / n)
end

local function creep()
  if h.st ~= 'limited' then return end
  set('factor', math.min(1, num('factor') + CREEP_PER_S * math.max(0, now - num('factor_at')) / 1000))
  set('factor_at', now)
  if num('factor') > OFF_FLOOR then h.floor_at = '0' end
  if num('factor') >= 1 then move('closed', 'well.recovered', 'the full rate goes through') end
end

local function busy(reason, evidence)
  if h.st == 'closed' then set('factor', 1) end
  if now - num('cut_at') < CUT_MS then return end
  set('factor', math.max(FLOOR, num('factor') * CUT))
  set('cut_at', now)
  set('factor_at', now)
  if num('factor') <= FLOOR and num('floor_at') == 0 then set('floor_at', now) end
  if num('floor_at') > 0 and now - num('floor_at') >= FLOOR_MS then
    open('overloaded.sustained', string.format('busy at %d %% of its rate for %d s', FLOOR * 100, FLOOR_MS / 1000))
  else
    move('limited', reason, evidence)
  end
end

local function judge() -- closed or limited
  creep()
  local sum, in_row = window(), row()
  local n = sum[1] + sum[2] + sum[3]
  local slow = sum[4] >= SLOW_N and sum[5] > SLOW_SHARE * sum[4]
  local bad = math.min(n, sum[2] + (slow and sum[5] or 0))
  if fatal > 0 then open(clean(a.reason), 'fatal reply')
  elseif count('refused') > 0 and now - num('last_ok') > QUIET_MS then
    open(clean(a.reason), 'connection refused, nothing accepted in the last second')
  elseif count('silent') > 0 and now - num('last_ok') > math.min(count('silent'), QUIET_MS) then
    open('down.silent', string.format('silent for %d ms, a probe was not answered, nobody was served', count('silent')))
  elseif in_row >= ROW then
    open(clean(a.reason), string.format('%d connection failures in a row, nothing accepted between', in_row))
  elseif n >= MIN_N and (hard > 0 or slow) and lower_bound(bad, n) > LOWER then
    open(hard > 0 and clean(a.reason) or 'overloaded.latency',
      string.format('%d of %d failed in %d s, lower bound %.2f', bad, n, WINDOW_S, lower_bound(bad, n)))
  elseif soft > 0 then busy(clean(a.reason), string.format('%d busy replies among %d in %d s', sum[3], n, WINDOW_S))
  elseif slow and count('slow') > 0 then
    busy('overloaded.latency', string.format('%d of %d final replies over 10 s', sum[5], sum[4]))
  elseif num('opens') + num('relapses') > 0 and now - num('healthy_at') >= FORGIVE_MS then
    set('opens', math.max(0, num('opens') - 1))
    set('relapses', math.max(0, num('relapses') - 1))
    set('healthy_at', now)
  end
end

local function try() -- half-open
  if hard + fatal > 0 then return open(clean(a.reason), 'failed while on trial') end
  if soft > 0 and h.overload == '1' then return open('overloaded.again', 'still busy while on trial') end
  local probing = num('probes') < PROBES
  if arg('probe_epoch') == num('ep') and h.probe_by == a.me and probing then
    if a.probe == 'bad' then return open(clean(a.reason), 'the probe failed') end
    if a.probe == 'well' then
      set('probes', num('probes') + 1)
      h.probe_until = '0'
      set('half_at', now)
      probing = num('probes') < PROBES
    end
  end
  if probing then
    if now >= num('probe_until') and arg('can') == 1 then
      probe, h.probe_by = 1, a.me
      set('probe_until', now + PROBE_LEASE_MS)
    end
    return
  end
  set('wins', num('wins') + math.min(ok, math.max(0, num('granted') - num('wins'))))
  set('used', num('used') + count('used'))
  local on_trial = now - num('half_at')
  if num('wins') >= WINS or (num('wins') >= FEW and on_trial >= FEW_MS) or
      (num('used') <= num('wins') and on_trial >= IDLE_MS) then
    return close()
  end
  if arg('want') > 0 then
    if num('grant_sec') ~= sec then set('grant_sec', sec); h.grant_n = '0' end
    grants = math.max(0, math.min(arg('want'), GRANTS_PER_S - num('grant_n')))
    set('grant_n', num('grant_n') + grants)
    set('granted', num('granted') + grants)
  end
end

local function wait_aside() -- exhausted or paused
  local operator = h.st == 'paused' and h.by == 'operator'
  if num('till') > 0 and now >= num('till') then return half(not operator, 'the time is over') end
  if operator then return end
  if ok > 0 and num('granted') > 0 then
    half(true, 'a mail was accepted again')
    set('wins', 1)
    set('granted', 1)
  elseif arg('want') > 0 and now >= num('next_mail') then
    grants = 1
    set('granted', num('granted') + 1)
    set('next_mail', now + RARE_MS)
  end
end

if not (h.st == 'paused' and h.by == 'operator') and count('paused') > 0 then set_aside('paused', 0)
elseif h.st ~= 'paused' and count('exhausted') > 0 then set_aside('exhausted', now + EXHAUSTED_MS)
elseif h.st == 'closed' or h.st == 'limited' then judge()
elseif h.st == 'half-open' then try()
elseif h.st == 'exhausted' or h.st == 'paused' then wait_aside() end

-- Sums of the hours that count; older ones go.
local function bounced()
  local taken, bad, hour = 0, 0, math.floor(sec / 3600)
  local all = redis.call('HGETALL', KEYS[3])
  for k = 1, #all, 2 do
    local at, kind = string.match(all[k], '^(%d+) ([ah])$')
    if not at or tonumber(at) <= hour - BOUNCE_HOURS then redis.call('HDEL', KEYS[3], all[k])
    elseif kind == 'a' then taken = taken + tonumber(all[k + 1])
    else bad = bad + tonumber(all[k + 1]) end
  end
  return math.min(bad, taken), taken
end

local function percent(part) return string.format('%.2f %%', part * 100) end

local level_from = num('level')
local function judge_bounces()
  local limit = {arg('bounce_warn') / 10000, arg('bounce_throttle') / 10000, arg('bounce_stop') / 10000}
  local level, bad, taken = num('level'), bounced()
  local size = taken + BOUNCE_WEIGHT * bad
  local waited = now - num('bounce_at')
  if size == num('bounce_size') and level == 0 then return end
  if size - num('bounce_size') < math.max(100, num('bounce_size') / 10) and waited >= 0 and waited < BOUNCE_LOOK_MS then return end
  set('bounce_size', size)
  set('bounce_at', now)
  set('bounce_hard', bad)
  set('bounce_taken', taken)
  local words = string.format('%d of %d mails of the last %d hours bounced hard, %s', bad, taken, BOUNCE_HOURS,
    percent(taken > 0 and bad / taken or 0))
  local sure = taken >= BOUNCE_N and lower_bound(bad, taken) or 0
  local to = level
  for k = 3, level + 1, -1 do
    if sure > limit[k] then to = k; break end
  end
  if to > level then words = words .. ', surely above ' .. percent(limit[to])
  elseif level > 0 and now - num('level_at') >= BOUNCE_DWELL_MS then
    if taken < BOUNCE_N then to, words = level - 1, words .. ': too few to tell'
    elseif bad / taken < BOUNCE_FELL * limit[level] then to, words = level - 1, words .. ', well below ' .. percent(limit[level]) end
  end
  h.bounces = words
  if to ~= level then set('level', to); set('level_at', now) end
end
if a.bounce_stop then judge_bounces() end
if h.level_untold == '1' then h.level_untold, level_from = '', tonumber(h.level_was or 0) end

local told = changed
if h.untold == '1' then h.untold, told = '', 1 end

local share, next_change = 0, num('till')
if h.st == 'closed' or h.st == 'limited' then
  local ramp_ms = math.max(1, arg('ramp_ms'))
  local since = now - num('closed_at')
  share = 1
  if num('closed_at') > 0 and since < ramp_ms then
    share = RAMP_FIRST + (1 - RAMP_FIRST) * math.max(0, since) / ramp_ms
    next_change = num('closed_at') + ramp_ms
  end
  if h.st == 'limited' then next_change = now + (1 - num('factor')) / CREEP_PER_S * 1000 end
elseif (h.st == 'exhausted' or h.st == 'paused') and h.by ~= 'operator' then
  if next_change == 0 or num('next_mail') < next_change then next_change = num('next_mail') end
end

local write = {}
for name, value in pairs(h) do
  if before[name] ~= value then write[#write + 1] = name; write[#write + 1] = value end
end
if #write > 0 then
  redis.call('HSET', KEYS[1], unpack(write))
  redis.call('EXPIRE', KEYS[1], KEEP_S)
end
if num('level') ~= level_from and changed == 0 then
  redis.call('PUBLISH', 'td:relays', string.format('relay=%s level=%s bounces="%s"', string.match(KEYS[1], '{r:(.-)}') or '', h.level,
    h.bounces or ''))
end
if changed == 1 then
  redis.call('PUBLISH', 'td:relays', string.format('relay=%s from=%s to=%s epoch=%s reason=%s evidence="%s"',
    string.match(KEYS[1], '{r:(.-)}') or '', from, h.st, h.ep, h.reason, h.evidence))
end
return {h.st, h.ep, string.format('%.3f', share), string.format('%.3f', num('factor')), grants, probe,
  string.format('%.0f', next_change), h.reason, h.evidence, told, string.format('%.0f', now), string.format('%d', num('level')),
  h.bounces or '', string.format('%d', level_from), h.bounce_hard or '0', h.bounce_taken or '0'}
