-- Writes any number of changes to one shard. Without changes, it begins an epoch or puts off its expiry.
-- KEYS 1 epoch  2 meta  3 index  4 tombstones  5 log  6… the record of each change
-- ARGV 1 layout  2 shards  3 id for a new epoch  4 id of the epoch that the caller knows, or ''
--      5 lowest seq that this epoch may have  6 ms that a doubt lasts  7 ms that keys without an end of their own are kept
--      8 entries kept in the log  9 seq up to which the caller knew its epoch
--      10 '' or: end the doubt, since all that was revoked in this former epoch  11 up to this seq is written again;
--      12 the doubt, by its issued_until, and 13 the present epoch that are meant
--      14 the clock of the caller  15 ms by which the clocks of issuers are ahead
--      then 8 per change: action, cutoff, until, lifetime, fingerprint, reason and actor ('' or '=…'), words;
--      action 'm' replays a record that was lost, with its other four numbers in place of the cutoff
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local MAX_INTEGER = 9007199254740991
-- What is issued so far: the same as `so_far`. The caller may date it 5 s ahead of this clock.
local so_far = math.max(now, math.min(tonumber(ARGV[14]), now + 5000)) + tonumber(ARGV[15])
local function int(number) return string.format('%.0f', number) end

-- === First everything is read, so that whatever fails does so before the first write. ===

local layout, shards, meta_epoch, former, former_seq, replayed, replayed_seq =
  unpack(redis.call('HMGET', KEYS[2], 'layout', 'shards', 'life', 'former', 'reach', 'healed', 'healed_to'))
if (layout and layout ~= ARGV[1]) or (shards and shards ~= ARGV[2]) then
  return redis.error_reply('LAYOUT version ' .. tostring(layout) .. ' with ' .. tostring(shards) .. ' shards')
end
redis.call('ZCARD', KEYS[3])
redis.call('ZCARD', KEYS[4])
redis.call('XLEN', KEYS[5])

-- Data was lost if the key of the epoch is gone, if its seq is lower than the caller knows, or if the meta hash names
-- an epoch that is not there. Then a new epoch begins, and tokens issued until now are in doubt. If another program
-- has begun the epoch without knowing that there was one before, tokens issued until it began are in doubt.
--
-- A caller that knew the former epoch says up to which seq. Only a caller that has written all of it again up to the
-- highest of these may end the doubt; a caller that comes later and knew more, or another epoch, declares it again.
local value, known, doubt_duration = redis.call('GET', KEYS[1]), ARGV[4], tonumber(ARGV[6])
local known_seq = tonumber(ARGV[9])
former, replayed = former or '', replayed or ''
former_seq, replayed_seq = tonumber(former_seq or 0), tonumber(replayed_seq or 0)
-- Without a doubt, issued_until is 0 and ends_at is the time at which a doubt was ended, or 0.
local epoch, started_at, issued_until, ends_at, seq, last_entry
local is_new, is_lost, is_declared = not value, false, false
if value then
  epoch, started_at, issued_until, ends_at, seq, last_entry =
    string.match(value, '^1 (%x+) (%d+) (%d+) (%d+) (%d+) (%d+%-%d+)$')
  if not epoch then return redis.error_reply('UNREADABLE the epoch of the shard') end
  started_at, issued_until, ends_at, seq = tonumber(started_at), tonumber(issued_until), tonumber(ends_at), tonumber(seq)
  if known ~= '' and known ~= epoch then
    if not (known == replayed and known_seq <= replayed_seq) then
      if issued_until < started_at then
        issued_until, ends_at, is_declared = started_at, math.max(ends_at, started_at + doubt_duration), true
      end
      if former == '' or former == known then
        former, former_seq = known, math.max(former_seq, known_seq)
      else
        former_seq = MAX_INTEGER
      end
    end
  elseif (known ~= '' and seq < tonumber(ARGV[5])) or (seq > 0 and not meta_epoch) then
    is_new, is_lost = true, true
  end
else
  issued_until, ends_at, seq, last_entry = 0, 0, 0, '0-0'
  is_lost = known ~= '' or meta_epoch
end
if is_new then
  epoch, started_at = ARGV[3], now
  if is_lost then issued_until, ends_at = now, math.max(ends_at, now + doubt_duration) end
  replayed, replayed_seq = '', 0
  if known ~= '' then former, former_seq = known, known_seq else former, former_seq = meta_epoch or '', 0 end
end

-- A doubt that is declared within an epoch, or ended, takes a seq and an entry in the log. So all learn of it who know
-- of an earlier seq, and a mirror that has not read it cannot claim to know all of this epoch.
if is_declared then seq = seq + 1 end
local is_end = ARGV[10] ~= '' and not (is_new or is_declared)
  and former == ARGV[10] and former_seq <= tonumber(ARGV[11])
  and issued_until > 0 and issued_until == tonumber(ARGV[12]) and epoch == ARGV[13]
if is_end then
  issued_until, ends_at, seq = 0, now, seq + 1
  replayed, replayed_seq = former, tonumber(ARGV[11])
end

-- === What the changes make of the records: the same as `Revocation::apply`. ===

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
  ends = math.min(ends, MAX_INTEGER)
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
    after.cutoff, after.set = last and math.max(so_far, last + 1) or so_far, at
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
  -- A replayed record has no words, and replaces none.
  local is_same_time = change.action == 'm' and after.at == before.at
  if is_same_time or outranked(after, before) then after.at, after.words = before.at, before.words end
  local same = revokes_all(after) == revokes_all(before) and cutoff_of(after) == cutoff_of(before)
  if same and after.ends == before.ends then return 'a' end
  if was and not undo then return 'x', after end
  return 'n', after
end

local latest, writes, replies = {}, {}, {}
for n = 1, #KEYS - 5 do
  local key, from = KEYS[5 + n], 15 + (n - 1) * 8
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

-- === The writes. The records come last: a change that is in force is in the log. ===

redis.call('HSET', KEYS[2], 'layout', ARGV[1], 'shards', ARGV[2])
if is_end or is_declared then
  local no_target = string.rep('\0', 16)
  last_entry = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*', 's', int(seq), 'e', epoch, 'f', no_target, 'n', '0 0 0 0 0')
end
for _, write in ipairs(writes) do
  local id, r = write.id, write.record
  local numbers = table.concat({ int(r.all), int(r.cutoff), int(r.set), int(r.back), int(r.ends) }, ' ')
  last_entry = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*', 's', int(write.seq), 'e', epoch, 'f', id, 'n', numbers)
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
local epoch_value =
  table.concat({ '1', epoch, int(started_at), int(issued_until), int(ends_at), int(seq), last_entry }, ' ')
redis.call('SET', KEYS[1], epoch_value)
redis.call('HSET', KEYS[2], 'life', epoch)
if former ~= '' then
  redis.call('HSET', KEYS[2], 'former', former, 'reach', int(former_seq),
    'healed', replayed, 'healed_to', int(replayed_seq))
end

-- Removes what has expired: a bounded number each time, but more than was added.
local kept = now + tonumber(ARGV[7])
for n = 3, 4 do
  local over = redis.call('ZRANGEBYSCORE', KEYS[n], '-inf', int(now), 'LIMIT', 0, 64 + 2 * #writes)
  if #over > 0 then redis.call('ZREM', KEYS[n], unpack(over)) end
  local last = redis.call('ZREVRANGE', KEYS[n], 0, 0, 'WITHSCORES')
  if last[2] then kept = math.max(kept, math.min(tonumber(last[2]) + 1, MAX_INTEGER)) end
end
for n = 1, 5 do redis.call('PEXPIREAT', KEYS[n], int(kept)) end
for _, write in ipairs(writes) do
  redis.call('SET', write.key, print(write.record), 'PXAT', int(write.record.ends))
end
return { epoch_value, int(now), unpack(replies) }
