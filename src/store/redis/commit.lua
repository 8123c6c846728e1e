-- Changes one document, if it is what it was when it was read and no guard has changed. A document
-- is kept as '<version> <id of the epoch that wrote it, or 0> <text>'. Of one that was deleted the
-- first two are kept, for ten minutes at least.
-- KEYS 1 document  2 members  3 epoch  4 writers  5… guards
-- ARGV 1 what the document was ('' for none, else '=…')  2 what it becomes (the same)
--      3 when it may be forgotten
--      4 id of the server, or zeros if it does not tell  5 id of the caller as a writer
--      6 the highest number of its own writes  7 '' or: replays what was confirmed, as this version
--      8 the epoch in which all of its own writes were there
--      then what each guard was (the same), then for each member its name and its end, or ''
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end
-- What is not there is `false`, as Redis says it.
local function text(argument) return argument ~= '' and string.sub(argument, 2) end

local epoch, server, settling =
  string.match(redis.call('GET', KEYS[3]) or '', '^3 (%x+) %x+ (%x+) %d+ (%d+) ')
local had, renewed, state =
  string.match(redis.call('HMGET', KEYS[4], ARGV[5])[1] or '', '^(%d+) (%d+) (%a)$')
local number, is_replay = math.max(tonumber(had or 0), tonumber(ARGV[6])), ARGV[7] ~= ''
local is_settled = settling == '0'
-- Only replays are taken from a server that settles, and from a writer that has confirmed more than
-- this server has.
local is_elsewhere = not server or server ~= ARGV[4] and ARGV[4] ~= string.rep('0', 16)
if is_elsewhere or not is_replay and
  (not is_settled or state == 'a' or state == 'm'
    or tonumber(ARGV[6]) > tonumber(had or 0) and ARGV[8] ~= epoch) then
  return { 'settling' }
end

local stored = redis.call('GET', KEYS[1])
local version, written_in, current = 0, '0', false
if stored then
  version, written_in, current = string.match(stored, '^(%d+) (%x+)(.*)$')
  if not version then return redis.error_reply('UNREADABLE a document') end
  version = tonumber(version)
  current = current ~= '' and string.sub(current, 2)
end
local before, after = text(ARGV[1]), text(ARGV[2])
local writes, is_overtaken = true, false
if is_replay then
  -- Once settling is over, a document that was changed here has gone on without what is replayed.
  writes = tonumber(ARGV[7]) > version and not (is_settled and written_in == epoch)
  -- If this server did not have it either, it is lost.
  is_overtaken = not writes and is_settled and written_in == epoch and current ~= after
    and had and tonumber(ARGV[6]) > tonumber(had)
  if writes then version, written_in = tonumber(ARGV[7]), '0' end
  state = state or 'a'
else
  if current ~= before then
    if current ~= after then return { 'conflict' } end
    -- A commit of unknown fate that is sent again was done the first time.
    writes = false
  else
    for n = 5, #KEYS do
      if redis.call('GET', KEYS[n]) ~= text(ARGV[n + 4]) then return { 'conflict' } end
    end
    version, written_in = version + 1, epoch
  end
  state, number = 'w', number + 1
end
-- Fails, if it must, before the first write.
redis.call('ZCARD', KEYS[2])

redis.call('HSET', KEYS[4], ARGV[5], table.concat({ int(number), int(now), state }, ' '))
-- The script that keeps the epoch puts this off, each second; it is as long as there (`KEPT`).
if not had then redis.call('PEXPIREAT', KEYS[4], int(now + 90 * 24 * 60 * 60 * 1000)) end
if writes then
  -- What is left of one that was deleted outlives every replay of an earlier version.
  local ends = math.max(tonumber(ARGV[3]), after and 1 or now + 600000)
  local value = int(version) .. ' ' .. written_in .. (after and ' ' .. after or '')
  redis.call('SET', KEYS[1], value, 'PXAT', int(ends))
end
local first = #KEYS + 5
for n = first, #ARGV, 2 do
  if ARGV[n + 1] ~= '' then
    redis.call('ZADD', KEYS[2], ARGV[n + 1], ARGV[n])
  elseif writes or not is_replay then
    redis.call('ZREM', KEYS[2], ARGV[n])
  end
end
if #ARGV >= first then
  -- A bounded number each time, but more than was added: redis does nothing else meanwhile.
  local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', int(now), 'LIMIT', 0, 64 + #ARGV)
  if #over > 0 then redis.call('ZREM', KEYS[2], unpack(over)) end
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', KEYS[2], int(tonumber(last[2]) + 1)) end
end
return { is_overtaken and 'overtaken' or 'done', int(number), int(version) }
