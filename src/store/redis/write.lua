-- Writes any number of changes to one shard, or none, which begins or prolongs its life.
-- KEYS 1 life  2 meta  3 index  4 tombstones  5 log  6… the record of each change
-- ARGV 1 layout  2 shards  3 id for a new life  4 id of the life that the caller knows, or ''  5 its seq
--      6 ms that a horizon lasts  7 ms that keys without an end of their own are kept  8 entries kept in the log
--      9 how far the life that the caller knows had come  10 '' or: lift the horizon, for all that was revoked in this life
--      11 up to this seq is in redis again  12 the horizon and 13 the life that are meant
--      then 8 per change: action, cutoff, until, lifetime, fingerprint, reason and actor ('' or '=…'), words;
--      action 'm' joins a record that was lost, with its other four numbers in place of the cutoff
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local FAR = 9007199254740991
local function int(number) return string.format('%.0f', number) end

-- === First everything is read, so that whatever fails does so before the first write. ===

local layout, shards, meta_life, former, reach, healed, healed_to =
  unpack(redis.call('HMGET', KEYS[2], 'layout', 'shards', 'life', 'former', 'reach', 'healed', 'healed_to'))
if (layout and layout ~= ARGV[1]) or (shards and shards ~= ARGV[2]) then
  return redis.error_reply('LAYOUT version ' .. tostring(layout) .. ' with ' .. tostring(shards) .. ' shards')
end
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('XLEN', KEYS[5])

-- The life goes on, or data was lost: its key is gone or says less than the caller knows, or than another key shows.
-- Then a new life begins, and tokens issued until now are beyond the horizon. If another program has begun it
-- without knowing that there was a life before, the horizon is the beginning of the new one.
--
-- Whoever knew the former life says how far it had come. The horizon is lifted by one who knows as much and has written it
-- again; and drawn anew by one who comes later and knows more, or of another life.
local value, known, span = redis.call('GET', KEYS[1]), ARGV[4], tonumber(ARGV[6])
local known_to = tonumber(ARGV[9])
former, healed, reach, healed_to = former or '', healed or '', tonumber(reach or 0), tonumber(healed_to or 0)
local life, birth, horizon, lifted, seq, mark
local is_new, lost, is_drawn = not value, false, false
if value then
  life, birth, horizon, lifted, seq, mark = string.match(value, '^1 (%x+) (%d+) (%d+) (%d+) (%d+) (%d+%-%d+)$')
  if not life then return redis.error_reply('UNREADABLE the life of the shard') end
  birth, horizon, lifted, seq = tonumber(birth), tonumber(horizon), tonumber(lifted), tonumber(seq)
  if known ~= '' and known ~= life then
    if not (known == healed and known_to <= healed_to) then
      if horizon < birth then
        horizon, lifted, is_drawn = birth, math.max(lifted, birth + span), true
      end
      if former == '' or former == known then former, reach = known, math.max(reach, known_to) else reach = FAR end
    end
  elseif (known ~= '' and seq < tonumber(ARGV[5])) or (seq > 0 and not meta_life) then
    is_new, lost = true, true
  end
else
  horizon, lifted, seq, mark = 0, 0, 0, '0-0'
  lost = known ~= '' or meta_life
end
if is_new then
  life, birth = ARGV[3], now
  if lost then horizon, lifted = now, math.max(lifted, now + span) end
  healed, healed_to = '', 0
  if known ~= '' then former, reach = known, known_to else former, reach = meta_life or '', 0 end
end

-- A horizon that is drawn in a life, or lifted, has a number and an entry in the log. So all learn
-- of it who know of an earlier one, and nobody who has not heard of it can vouch for this life.
if is_drawn then seq = seq + 1 end
local is_lift = ARGV[10] ~= '' and not (is_new or is_drawn)
  and former == ARGV[10] and reach <= tonumber(ARGV[11])
  and horizon > 0 and horizon == tonumber(ARGV[12]) and life == ARGV[13]
if is_lift then
  horizon, lifted, seq = 0, now, seq + 1
  healed, healed_to = former, tonumber(ARGV[11])
end

-- === What the changes make of the records: `Revocation::apply`, to the letter. ===

local function parse(text)
  local all, cutoff, set, back, ends, at, words =
    string.match(text, '^1 (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  if not all then return nil end
  return {
    all = tonumber(all), cutoff = tonumber(cutoff), set = tonumber(set), back = tonumber(back),
    ends = tonumber(ends), at = tonumber(at), words = words,
  }
end

local function print(r)
  return table.concat({ '1', int(r.all), int(r.cutoff), int(r.set), int(r.back), int(r.ends), int(r.at), r.words }, ' ')
end

local function revokes_all(r) return r.all > 0 and r.all >= r.back end
local function cutoff_of(r) if r.set > 0 and r.set >= r.back then return r.cutoff end end
local function in_effect(r) return revokes_all(r) or cutoff_of(r) ~= nil end

-- `<` on strings follows the locale of the server; this follows the bytes. What is absent comes first.
local function less(a, b)
  if a == nil or b == nil then return a == nil and b ~= nil end
  for n = 1, math.min(#a, #b) do
    if a:byte(n) ~= b:byte(n) then return a:byte(n) < b:byte(n) end
  end
  return #a < #b
end

-- Whether the note of `after` gives way to that of `before`.
local function outranked(after, before)
  if after.at ~= before.at then return after.at < before.at end
  local other = cjson.decode(before.words)
  if after.reason ~= other.reason then return less(after.reason, other.reason) end
  return less(after.actor, other.actor)
end

local function apply(before, change)
  if before and before.ends <= now then before = nil end
  local ends = change.ends
  if change.lifetime > 0 then ends = math.max(ends, now + change.lifetime) end
  ends = math.min(ends, FAR)
  if ends <= now then return 'e' end
  local was = before and in_effect(before) or false
  local undo = change.action == 'b'
  if undo and not was then return 'a' end
  local floor = 0
  if before then floor = undo and math.max(before.all, before.set) + 1 or before.back end
  local at = math.max(now, floor)
  local after = {
    all = 0, cutoff = 0, set = 0, back = 0, ends = ends,
    at = at, reason = change.reason, actor = change.actor, words = change.words,
  }
  if change.action == 'a' then after.all = at
  elseif change.action == 's' then
    local last = before and cutoff_of(before)
    after.cutoff, after.set = last and math.max(now, last + 1) or now, at
  elseif change.action == 'u' then after.cutoff, after.set = change.cutoff, at
  elseif change.action == 'm' then
    local all, cutoff, set, back = string.match(change.numbers, '^(%d+) (%d+) (%d+) (%d+)$')
    after.all, after.cutoff, after.set, after.back = tonumber(all), tonumber(cutoff), tonumber(set), tonumber(back)
    after.at = math.max(after.all, after.set, after.back)
  else after.back = at end
  if not before then return 'n', after end
  for _, part in ipairs({ 'all', 'cutoff', 'set', 'back', 'ends' }) do
    after[part] = math.max(after[part], before[part])
  end
  -- What is told again has no words, and takes the place of none.
  local is_same_time = change.action == 'm' and after.at == before.at
  if is_same_time or outranked(after, before) then after.at, after.words = before.at, before.words end
  local same = revokes_all(after) == revokes_all(before) and cutoff_of(after) == cutoff_of(before)
  if same and after.ends == before.ends then return 'a' end
  if was and not undo then return 'x', after end
  return 'n', after
end

local latest, writes, replies = {}, {}, {}
for n = 1, #KEYS - 5 do
  local key, from = KEYS[5 + n], 13 + (n - 1) * 8
  local before = latest[key]
  if before == nil then
    local text = redis.call('GET', key)
    before = text and parse(text) or false
    if text and not before then return redis.error_reply('UNREADABLE a record') end
  end
  local function optional(text) if text ~= '' then return string.sub(text, 2) end end
  local change = {
    action = ARGV[from + 1], cutoff = tonumber(ARGV[from + 2]), numbers = ARGV[from + 2],
    ends = tonumber(ARGV[from + 3]), lifetime = tonumber(ARGV[from + 4]),
    reason = optional(ARGV[from + 6]), actor = optional(ARGV[from + 7]), words = ARGV[from + 8],
  }
  local outcome, after = apply(before or nil, change)
  if after then
    seq = seq + 1
    latest[key] = after
    writes[#writes + 1] = { key = key, id = ARGV[from + 5], record = after, seq = seq }
  else
    latest[key] = before
  end
  local record = after or before or nil
  local cutoff = record and cutoff_of(record)
  replies[n] = table.concat({ outcome, int(record and record.at or now), cutoff and int(cutoff) or '-', int(seq) }, ' ')
end

-- === The writes. The records come last: a change that is in force is known to all who follow the log. ===

redis.call('HSET', KEYS[2], 'layout', ARGV[1], 'shards', ARGV[2])
if is_lift or is_drawn then
  local nobody = string.rep('\0', 16)
  mark = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*', 's', int(seq), 'e', life, 'f', nobody, 'n', '0 0 0 0 0')
end
for _, write in ipairs(writes) do
  local id, r = write.id, write.record
  local numbers = table.concat({ int(r.all), int(r.cutoff), int(r.set), int(r.back), int(r.ends) }, ' ')
  mark = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*', 's', int(write.seq), 'e', life, 'f', id, 'n', numbers)
  if in_effect(r) then
    local plain = revokes_all(r) and r.back == 0
    redis.call('ZADD', KEYS[3], int(r.ends), (plain and 'a' or 'r') .. id)
    redis.call('ZREM', KEYS[3], (plain and 'r' or 'a') .. id)
    redis.call('ZREM', KEYS[4], id)
  else
    redis.call('ZREM', KEYS[3], 'a' .. id, 'r' .. id)
    redis.call('ZADD', KEYS[4], int(r.ends), id)
  end
end
local life_value = table.concat({ '1', life, int(birth), int(horizon), int(lifted), int(seq), mark }, ' ')
redis.call('SET', KEYS[1], life_value)
redis.call('HSET', KEYS[2], 'life', life)
if former ~= '' then
  redis.call('HSET', KEYS[2], 'former', former, 'reach', int(reach), 'healed', healed, 'healed_to', int(healed_to))
end

-- Forgets what may be forgotten: a bounded number each time, but more than was added.
local kept = now + tonumber(ARGV[7])
for n = 3, 4 do
  local over = redis.call('ZRANGEBYSCORE', KEYS[n], '-inf', int(now), 'LIMIT', 0, 64 + 2 * #writes)
  if #over > 0 then redis.call('ZREM', KEYS[n], unpack(over)) end
  local last = redis.call('ZREVRANGE', KEYS[n], 0, 0, 'WITHSCORES')
  if last[2] then kept = math.max(kept, math.min(tonumber(last[2]) + 1, FAR)) end
end
for n = 1, 5 do redis.call('PEXPIREAT', KEYS[n], int(kept)) end
for _, write in ipairs(writes) do
  redis.call('SET', write.key, print(write.record), 'PXAT', int(write.record.ends))
end
return { life_value, int(now), unpack(replies) }
