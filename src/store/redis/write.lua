-- Writes any number of changes to one shard. Without changes, it keeps the epoch: it begins one,
-- carries it over to another server, ends its settling, and puts off its expiry. ARCHITECTURE.md
-- draws the states.
-- KEYS 1 epoch  2 meta  3 index  4 tombstones  5 log  6 writers  7… the record of each change
-- ARGV 1 layout  2 shards  3 id for a new epoch  4 id of the epoch that the caller knows, or ''
--      5 lowest seq that this epoch may have  6 ms that a doubt lasts
--      7 ms that keys without an end of their own are kept
--      8 entries kept in the log  9 seq up to which the caller knew its epoch
--      10 '' or: end the doubt, since all that was revoked in this former epoch
--      11 up to this seq is written again;
--      12 the doubt, by its issued_until, and 13 the present epoch that are meant; or an operator:
--      10 'accept' ends the doubt, if it reaches no further than 12; 'declare' begins one, up to 12
--      14 the clock of the caller  15 ms by which the clocks of issuers are ahead
--      16 id of the server, or zeros if it does not tell  17 id of the caller as a writer
--      18 what it does: 'w' writes, 't' renews, 'r' replays what it has confirmed, 'd' has replayed
--      all of it, 'g' all but what it has not any more, 'o' signs off
--      19 the highest number of its own writes  20 '1' if its epoch went on after this one began
--      21 an epoch of which the caller has known for long  22 so many changes
--      23 the epoch in which all of its own writes were there
--      then 8 per change: action, cutoff, until, lifetime, fingerprint, reason and actor ('' or
--      '=…'), words. With the cutoff goes the session that it spares, or '-'. The actions 'm' and
--      'p' replay a record that was lost, with its other four numbers and what it spares in place
--      of both: 'm' is what a mirror knows of it, without words; 'p' what a writer has confirmed,
--      with the seq that it had, or 0, in place of the lifetime. A reinstatement comes with the
--      revocations that it stands against
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local MAX_INTEGER = 9007199254740991
-- The id of no epoch, and of a server that does not tell its own.
local NOBODY = string.rep('0', 16)
-- How long settling lasts at least, so that processes that reach this server late are heard, and at
-- most.
local SETTLING_LEAST, SETTLING_MOST = 1200, 30000
-- A writer that has not renewed for so long is gone: by the clock of one server, and by those of
-- two, which may be apart.
local WRITER_GONE, WRITER_FORGOTTEN = 30000, 300000
-- What is issued so far: the same as `so_far`. The caller may date it 5 s ahead of this clock.
local so_far = math.max(now, math.min(tonumber(ARGV[14]), now + 5000)) + tonumber(ARGV[15])
local function int(number) return string.format('%.0f', number) end

-- A writer is in one of these states, which the hash of writers holds behind its number and its
-- last renewal:
--   w  nothing is known that this server does not have
--   a  it is awaited: it has not said yet that it has replayed everything
--   t  it has, while this server settles    g  the same, but for what it has forgotten
--   m  it did not come while this server settled

-- === First everything is read, so that whatever fails does so before the first write. ===

local layout, shards, meta_epoch, former, former_seq, replayed, replayed_seq, ancestors,
  missing_until, seen_at, fork_seq, put_back, long_known =
  unpack(redis.call('HMGET', KEYS[2], 'layout', 'shards', 'epoch', 'former', 'former_seq',
    'replayed', 'replayed_seq', 'ancestors', 'missing_until', 'settling_seen', 'fork_seq',
    'put_back', 'long_known'))
if (layout and layout ~= ARGV[1]) or (shards and shards ~= ARGV[2]) then
  return redis.error_reply(
    'LAYOUT version ' .. tostring(layout) .. ' with ' .. tostring(shards) .. ' shards')
end
redis.call('ZCARD', KEYS[3])
local tombstones = redis.call('ZCARD', KEYS[4])
redis.call('XLEN', KEYS[5])

-- Data was lost if the key of the epoch is gone, if its seq is lower than the caller knows, or if
-- the meta hash names an epoch that is not there. Then a new epoch begins, and tokens issued until
-- now are in doubt. If another program has begun the epoch without knowing that there was one
-- before, tokens issued until it began are in doubt.
--
-- A caller that knew the former epoch says up to which seq. Only a caller that has written all of
-- it again up to the highest of these may end the doubt; a caller that comes later and knew more,
-- or another epoch, declares it again.
--
-- An epoch that another server has carried over is no loss: its id is among the ancestors.
local value, known, doubt_duration = redis.call('GET', KEYS[1]), ARGV[4], tonumber(ARGV[6])
local known_seq = tonumber(ARGV[9])
former, replayed, ancestors = former or '', replayed or '', ancestors or ''
former_seq, replayed_seq = tonumber(former_seq or 0), tonumber(replayed_seq or 0)
missing_until = tonumber(missing_until or 0)
fork_seq, put_back = tonumber(fork_seq or 0), tonumber(put_back or 0)
long_known = tonumber(long_known or 0)
-- Without a doubt, issued_until is 0 and ends_at is the time at which a doubt was ended, or 0.
local epoch, parent, server, started_at, settling_since, awaited, issued_until, ends_at, seq,
  last_entry
local is_new, is_lost, is_announced, is_moved = not value, false, false, false
if value then
  epoch, parent, server, started_at, settling_since, awaited, issued_until, ends_at, seq,
    last_entry =
    string.match(value, '^3 (%x+) (%x+) (%x+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+) (%d+%-%d+)$')
  if not epoch then return redis.error_reply('UNREADABLE the epoch of the shard') end
  started_at, issued_until = tonumber(started_at), tonumber(issued_until)
  ends_at, seq = tonumber(ends_at), tonumber(seq)
  settling_since, awaited = tonumber(settling_since), tonumber(awaited)
  is_moved = ARGV[16] ~= NOBODY and server ~= ARGV[16]
  local is_ancestor = known ~= '' and string.find(ancestors, known, 1, true)
  if known ~= '' and known ~= epoch then
    if not (is_ancestor or (known == replayed and known_seq <= replayed_seq)) then
      if ARGV[20] == '1' then
        is_new, is_lost = true, true
      elseif issued_until < started_at then
        issued_until, is_announced = started_at, true
        ends_at = math.max(ends_at, started_at + doubt_duration)
      end
      if former == '' or former == known then
        former, former_seq = known, math.max(former_seq, known_seq)
      else
        former_seq = MAX_INTEGER
      end
    end
  elseif (known ~= '' and not is_moved and seq < tonumber(ARGV[5]))
    or (seq > 0 and not meta_epoch) then
    is_new, is_lost = true, true
  end
else
  issued_until, ends_at, seq, last_entry = 0, 0, 0, '0-0'
  parent, settling_since, awaited = NOBODY, 0, 0
  is_lost = known ~= '' or meta_epoch
end
if ARGV[16] ~= NOBODY or not server then server = ARGV[16] end
if is_new then
  -- Nobody can put everything back that was lost, so nobody is waited for.
  local was = epoch
  epoch, parent, started_at, ancestors = ARGV[3], NOBODY, now, ''
  settling_since, awaited, missing_until = 0, 0, 0
  if is_lost then issued_until, ends_at = now, math.max(ends_at, now + doubt_duration) end
  replayed, replayed_seq = '', 0
  if was and known ~= '' and known ~= was then former, former_seq = was, MAX_INTEGER
  elseif known ~= '' then former, former_seq = known, known_seq
  else former, former_seq = meta_epoch or '', 0 end
end

-- === Another server begins to settle; writers say how far they are; settling ends. ===

local writers = {}
do
  local all = redis.call('HGETALL', KEYS[6])
  for n = 1, #all, 2 do
    local number, renewed, state = string.match(all[n + 1], '^(%d+) (%d+) (%a)$')
    if number then
      writers[all[n]] = { number = tonumber(number), renewed = tonumber(renewed), state = state }
    end
  end
end
local me, doing = ARGV[17], ARGV[18]
local gone = {}
local had = writers[me] and writers[me].number

if value and is_moved and not is_new then
  -- Whoever knew the epoch of the other server finds it among the ancestors, the latest first.
  ancestors = string.sub(epoch .. ' ' .. ancestors, 1, 16 * 17)
  parent, epoch, started_at, settling_since, is_announced = epoch, ARGV[3], now, now, true
  -- What others have known for long, or a writer had that is forgotten, does not come back with
  -- those who are awaited.
  if long_known > fork_seq + put_back then missing_until = 0 end
  seen_at, fork_seq, put_back, long_known = now, seq, 0, 0
  for id, writer in pairs(writers) do
    if now - writer.renewed > WRITER_FORGOTTEN then
      if writer.state == 'm' then missing_until = 0 end
      writers[id], gone[#gone + 1] = nil, id
    else
      writer.state, writer.is_changed = 'a', true
    end
  end
end
local is_settling = settling_since > 0

-- What was known for long is not put back by those who wrote it: they may have forgotten it, or
-- have ended. A doubt that reaches to the beginning of this epoch covers it.
if ARGV[21] == parent and tonumber(ARGV[22]) > long_known then
  long_known = tonumber(ARGV[22])
  if not is_settling and long_known > fork_seq + put_back and issued_until < started_at then
    issued_until, ends_at, is_announced = so_far, math.max(ends_at, so_far + doubt_duration), true
    missing_until = 0
  end
end

local function is_in(state)
  local count = 0
  for _, writer in pairs(writers) do if writer.state == state then count = count + 1 end end
  return count
end

local number = math.max(had or 0, tonumber(ARGV[19]))
-- Whoever has confirmed more than this server has, writes that again first. In the same epoch
-- nothing was lost: the server has only forgotten the writer, as after its clock was set.
local refuses = doing == 'w' and (is_settling
  or (tonumber(ARGV[19]) > (had or 0) and ARGV[23] ~= epoch)
  or (writers[me] and (writers[me].state == 'a' or writers[me].state == 'm')))
if doing == 'o' then
  if writers[me] then writers[me], gone[#gone + 1] = nil, me end
elseif doing == 'd' or doing == 'g' then
  local was_missing = writers[me] and writers[me].state == 'm'
  local done = doing == 'g' and 'g' or 't'
  local state = is_settling and done or 'w'
  writers[me] = { number = number, renewed = now, state = state, is_changed = true }
  if doing == 'g' and not is_settling then
    issued_until, is_announced = math.max(issued_until, so_far), true
    ends_at = math.max(ends_at, so_far + doubt_duration)
    missing_until = 0
  elseif was_missing and not is_settling and is_in('m') == 0 and missing_until > 0
    and missing_until == issued_until and long_known <= fork_seq + put_back then
    -- The doubt was for what it alone had.
    issued_until, ends_at, missing_until, is_announced = 0, now, 0, true
  end
elseif doing == 'r' then
  local state = writers[me] and writers[me].state or 'a'
  writers[me] = { number = number, renewed = now, state = state, is_changed = true }
elseif doing == 'w' and not refuses then
  number = number + 1
  writers[me] = { number = number, renewed = now, state = 'w', is_changed = true }
elseif writers[me] then
  writers[me].renewed, writers[me].is_changed = now, true
end

if is_settling then
  -- While this server refused writes, nobody could come.
  local seen = tonumber(seen_at or now)
  if now - seen > 2000 then settling_since = settling_since + (now - seen) end
  seen_at = now
  awaited = is_in('a')
  local lasts = now - settling_since
  if (awaited == 0 and lasts >= SETTLING_LEAST) or lasts >= SETTLING_MOST then
    local has_gap = is_in('g') > 0
    if awaited > 0 or has_gap or long_known > fork_seq + put_back then
      -- A doubt that nobody can end becomes part of it.
      local is_lasting = issued_until > 0 and ends_at > now
      local is_final = has_gap or is_lasting and missing_until ~= issued_until
      issued_until = math.max(issued_until, so_far)
      ends_at = math.max(ends_at, so_far + doubt_duration)
      missing_until = is_final and 0 or issued_until
    elseif missing_until > 0 and missing_until == issued_until then
      -- Those who were missing at the server before have come to this one.
      issued_until, ends_at, missing_until = 0, now, 0
    end
    for _, writer in pairs(writers) do
      writer.state, writer.is_changed = writer.state == 'a' and 'm' or 'w', true
    end
    settling_since, awaited, is_settling, is_announced = 0, 0, false, true
  end
elseif doing == 't' then
  for id, writer in pairs(writers) do
    if writer.state ~= 'm' and now - writer.renewed > WRITER_GONE then
      writers[id], gone[#gone + 1] = nil, id
    end
  end
end

local is_accepted = ARGV[10] == 'accept' and issued_until <= tonumber(ARGV[12])
if ARGV[10] == 'declare' then
  local doubted = math.min(tonumber(ARGV[12]), so_far)
  if doubted > issued_until then
    issued_until, ends_at = doubted, math.max(ends_at, doubted + doubt_duration)
    missing_until, is_announced = 0, true
  end
end

-- A doubt that is declared within an epoch, or ended, takes a seq and an entry in the log; so do
-- the beginning and the end of settling. So all learn of it who know of an earlier seq, and a
-- mirror that has not read it cannot claim to know all of this epoch.
if is_announced then seq = seq + 1 end
local is_replayed = ARGV[10] ~= '' and former == ARGV[10] and former_seq <= tonumber(ARGV[11])
  and issued_until == tonumber(ARGV[12]) and epoch == ARGV[13]
local is_end = (is_replayed or is_accepted) and issued_until > 0
  and not (is_new or is_announced or is_settling)
if is_end then
  issued_until, ends_at, seq, missing_until = 0, now, seq + 1, 0
  replayed, replayed_seq = former, tonumber(ARGV[11])
  -- Whoever comes later and knew more does not bring back what an operator has accepted.
  if is_accepted then replayed_seq, long_known = MAX_INTEGER, MAX_INTEGER end
end

-- === What the changes make of the records: the same as `Revocation::apply`. ===

-- A cutoff, and the time at which it was set, can be earlier for one session: `cutoff_spared` is
-- the session and the time, and `set_spared` the same. As text: '-' for neither, or both with a
-- comma between them, each '-' or '<session>:<time>'.
local function parse_spared(r, text)
  for _, part in ipairs({ 'cutoff', 'set' }) do
    local pattern = part == 'cutoff' and '^(%x+):(%d+),' or ',(%x+):(%d+)$'
    local session, time = string.match(text, pattern)
    r[part .. '_spared'] = session and { session, tonumber(time) } or nil
  end
  return r
end

local function print_spared(r)
  if not (r.cutoff_spared or r.set_spared) then return '-' end
  local function one(spared) return spared and spared[1] .. ':' .. int(spared[2]) or '-' end
  return one(r.cutoff_spared) .. ',' .. one(r.set_spared)
end

local function parse(text)
  local all, cutoff, set, back, ends, spared, at, words =
    string.match(text, '^3 (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) (%d+) (.*)$')
  if not all then return nil end
  return parse_spared({
    all = tonumber(all), cutoff = tonumber(cutoff), set = tonumber(set), back = tonumber(back),
    ends = tonumber(ends), at = tonumber(at), words = words,
  }, spared)
end

local function print(r)
  return table.concat({
    '3', int(r.all), int(r.cutoff), int(r.set), int(r.back), int(r.ends), print_spared(r),
    int(r.at), r.words,
  }, ' ')
end

-- What holds for the tokens of a session.
local function time_of(r, part, session)
  local spared = r[part .. '_spared']
  return spared and spared[1] == session and spared[2] or r[part]
end

-- Makes a time of `after` the later one, for each session: the same as `TimeBySession::later`.
local function join(after, before, part)
  local name = part .. '_spared'
  local one, other = after[name], before[name]
  local session
  if after[part] > before[part] then session = one and one[1]
  elseif after[part] < before[part] then session = other and other[1]
  elseif one and other and one[1] == other[1] then session = one[1] end
  local spared = session
    and { session, math.max(time_of(after, part, session), time_of(before, part, session)) }
  after[part], after[name] = math.max(after[part], before[part]), spared or nil
end

local function revokes_all(r) return r.all > 0 and r.all >= r.back end
local function cutoff_of(r) if r.set > 0 and r.set >= r.back then return r.cutoff end end
local function in_effect(r) return revokes_all(r) or cutoff_of(r) ~= nil end

-- `<` on strings follows the locale of the server; this follows the bytes. What is absent comes
-- first.
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

-- Whether somebody who may have reinstated targets elsewhere has yet to come.
local may_be_undone = parent ~= NOBODY and is_in('m') > 0
local is_repeated = doing == 'r' and tonumber(ARGV[19]) <= (had or 0)

local function apply(before, change)
  if before and before.ends <= now then before = nil end
  local ends = change.ends
  if change.lifetime > 0 and change.action ~= 'p' then
    ends = math.max(ends, now + change.lifetime)
  end
  ends = math.min(ends, MAX_INTEGER)
  if ends <= now then return 'e' end
  local was = before and in_effect(before) or false
  local undo, is_replay = change.action == 'b', change.action == 'm' or change.action == 'p'
  if undo and not was then return 'a' end
  local floor, revoked_at = 0, before and math.max(before.all, before.set) or 0
  if before then floor = before.back end
  if before and (undo or may_be_undone) then floor = math.max(floor, revoked_at + 1) end
  local at = math.max(now, floor)
  local after = {
    all = 0, cutoff = 0, set = 0, back = 0, ends = ends,
    at = at, reason = change.reason, actor = change.actor, words = change.words,
  }
  if change.action == 'a' then after.all = at
  elseif change.action == 's' or change.action == 'u' then
    local last = before and cutoff_of(before)
    local cutoff, session = string.match(change.numbers, '^(%d+) (%S+)$')
    if change.action == 'u' then after.cutoff = tonumber(cutoff)
    else after.cutoff = last and math.max(so_far, last + 1) or so_far end
    after.set = at
    if session ~= '-' then
      if after.cutoff > 0 then after.cutoff_spared = { session, 0 } end
      after.set_spared = { session, 0 }
    end
  elseif is_replay then
    local all, cutoff, set, back, spared =
      string.match(change.numbers, '^(%d+) (%d+) (%d+) (%d+) (%S+)$')
    parse_spared(after, spared)
    all, cutoff, set, back = tonumber(all), tonumber(cutoff), tonumber(set), tonumber(back)
    -- A reinstatement stands against the revocations that it comes with, and no other: what was
    -- reinstated on another server may have been revoked on this one since. Who was awaited is late
    -- by the whole settling at least; of others only what was revoked before this epoch is surely
    -- the older.
    local is_missing = writers[me] and writers[me].state == 'm'
    local is_awaited = change.action == 'p' and (is_settling or is_missing)
    local stands = not before or before.all <= all and before.set <= set
      and (is_awaited or revoked_at < started_at)
    if not stands then
      if all < back then all = 0 end
      local of_set, of_cutoff = after.set_spared, after.cutoff_spared
      if set < back then
        cutoff, set, after.cutoff_spared, after.set_spared = 0, 0, nil, nil
      elseif of_set and of_set[2] < back then
        -- Of the session that is spared it was undone.
        if of_cutoff and of_cutoff[1] == of_set[1] then of_cutoff[2] = 0 end
        of_set[2] = 0
      end
      back = 0
    end
    after.all, after.cutoff, after.set, after.back = all, cutoff, set, back
    after.at = math.max(after.all, after.set, after.back)
    if after.at == 0 then return 'a' end
  else after.back = at end
  if not before then return 'n', after end
  for _, part in ipairs({ 'all', 'back', 'ends' }) do
    after[part] = math.max(after[part], before[part])
  end
  join(after, before, 'cutoff')
  join(after, before, 'set')
  -- A replayed record has no words, and replaces none.
  local is_same_time = change.action == 'm' and after.at == before.at
  if is_same_time or outranked(after, before) then
    after.at, after.words = before.at, before.words
  end
  local same = revokes_all(after) == revokes_all(before) and cutoff_of(after) == cutoff_of(before)
    and (not cutoff_of(after) or print_spared(after) == print_spared(before))
  if same and after.ends == before.ends then
    -- It is not the revocation that was found, and what undoes that one later must not undo this
    -- one.
    local is_older = parent ~= NOBODY and revoked_at < started_at
    if was and not (undo or is_replay) and (may_be_undone or is_older) then return 'A', after end
    return 'a'
  end
  if was and not undo then return 'x', after end
  return 'n', after
end

local latest, writes, replies = {}, {}, {}
for n = 1, refuses and 0 or #KEYS - 6 do
  local key, from = KEYS[6 + n], 23 + (n - 1) * 8
  local before = latest[key]
  if before == nil then
    local text = redis.call('GET', key)
    before = text and parse(text) or false
    if text and not before then return redis.error_reply('UNREADABLE a record') end
  end
  local function optional(text) if text ~= '' then return string.sub(text, 2) end end
  local change = {
    action = ARGV[from + 1], numbers = ARGV[from + 2],
    ends = tonumber(ARGV[from + 3]), lifetime = tonumber(ARGV[from + 4]),
    reason = optional(ARGV[from + 6]), actor = optional(ARGV[from + 7]), words = ARGV[from + 8],
  }
  local outcome, after = apply(before or nil, change)
  if change.action == 'p' and not is_repeated and change.lifetime > fork_seq then
    put_back = put_back + 1
  end
  if after then
    seq = seq + 1
    latest[key] = after
    writes[#writes + 1] = { key = key, id = ARGV[from + 5], record = after, seq = seq }
  else
    latest[key] = before
  end
  local record = after or before or nil
  local cutoff = record and cutoff_of(record)
  local known = record or { at = now, ends = now, all = 0, cutoff = 0, set = 0, back = 0 }
  replies[n] = table.concat({
    outcome, int(known.at), cutoff and int(cutoff) or '-', int(seq), int(known.ends),
    int(known.all), int(known.cutoff), int(known.set), int(known.back), print_spared(known),
  }, ' ')
end

-- === The writes. The records come last: a change that is in force is in the log. ===

if is_end or is_announced then
  local no_target = string.rep('\0', 16)
  last_entry = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*',
    's', int(seq), 'e', epoch, 'f', no_target, 'n', '0 0 0 0 0 -')
end
for _, write in ipairs(writes) do
  local id, r = write.id, write.record
  local numbers = {
    int(r.all), int(r.cutoff), int(r.set), int(r.back), int(r.ends), print_spared(r),
  }
  last_entry = redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[8], '*',
    's', int(write.seq), 'e', epoch, 'f', id, 'n', table.concat(numbers, ' '))
  if in_effect(r) then
    local plain = revokes_all(r) and r.back == 0
    redis.call('ZADD', KEYS[3], int(r.ends), (plain and 'a' or 'r') .. id)
    redis.call('ZREM', KEYS[3], (plain and 'r' or 'a') .. id)
    -- Most shards have none.
    if tombstones > 0 then redis.call('ZREM', KEYS[4], id) end
  else
    redis.call('ZREM', KEYS[3], 'a' .. id, 'r' .. id)
    tombstones = tombstones + redis.call('ZADD', KEYS[4], int(r.ends), id)
  end
end
local epoch_value = table.concat({
  '3', epoch, parent, server, int(started_at), int(settling_since), int(awaited),
  int(issued_until), int(ends_at), int(seq), last_entry,
}, ' ')
redis.call('HSET', KEYS[2], 'layout', ARGV[1], 'shards', ARGV[2], 'epoch', epoch,
  'ancestors', ancestors,
  'missing_until', int(missing_until), 'settling_seen', int(tonumber(seen_at or 0)),
  'fork_seq', int(fork_seq), 'put_back', int(put_back), 'long_known', int(long_known))
for id, writer in pairs(writers) do
  if writer.is_changed then
    local value = { int(writer.number), int(writer.renewed), writer.state }
    redis.call('HSET', KEYS[6], id, table.concat(value, ' '))
  end
end
if #gone > 0 then redis.call('HDEL', KEYS[6], unpack(gone)) end
if former ~= '' then
  redis.call('HSET', KEYS[2], 'former', former, 'former_seq', int(former_seq),
    'replayed', replayed, 'replayed_seq', int(replayed_seq))
end

-- Removes what has expired: a bounded number each time, but more than was added.
local kept = now + tonumber(ARGV[7])
for n = 3, tombstones > 0 and 4 or 3 do
  local over = redis.call('ZRANGEBYSCORE', KEYS[n], '-inf', int(now), 'LIMIT', 0, 64 + 2 * #writes)
  if #over > 0 then redis.call('ZREM', KEYS[n], unpack(over)) end
  local last = redis.call('ZREVRANGE', KEYS[n], 0, 0, 'WITHSCORES')
  if last[2] then kept = math.max(kept, math.min(tonumber(last[2]) + 1, MAX_INTEGER)) end
end
redis.call('SET', KEYS[1], epoch_value, 'PXAT', int(kept))
for n = 2, 6 do
  if n ~= 4 or tombstones > 0 then redis.call('PEXPIREAT', KEYS[n], int(kept)) end
end
for _, write in ipairs(writes) do
  redis.call('SET', write.key, print(write.record), 'PXAT', int(write.record.ends))
end
return {
  epoch_value, int(now), refuses and 'settling' or 'done', had and int(had) or '-', int(number),
  unpack(replies)
}
