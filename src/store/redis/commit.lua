-- Changes one document, if it is what it was when it was read and no guard has changed.
-- KEYS 1 document  2 members  3… guards
-- ARGV 1 what the document was ('' for none, else '=…')  2 what it becomes (the same)  3 when it may be forgotten
--      then what each guard was (the same), then for each member its name and its end, or ''
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end
-- What is not there is `false`, as Redis says it.
local function text(argument) return argument ~= '' and string.sub(argument, 2) end

local current = redis.call('GET', KEYS[1])
local before, after = text(ARGV[1]), text(ARGV[2])
if current ~= before then
  -- A commit of unknown fate that is sent again was done the first time.
  return current == after and 'done' or 'conflict'
end
for n = 3, #KEYS do
  if redis.call('GET', KEYS[n]) ~= text(ARGV[n + 1]) then return 'conflict' end
end
-- Fails, if it must, before the first write.
redis.call('ZCARD', KEYS[2])

if after then redis.call('SET', KEYS[1], after, 'PXAT', ARGV[3]) else redis.call('DEL', KEYS[1]) end
for n = #KEYS + 2, #ARGV, 2 do
  if ARGV[n + 1] ~= '' then
    redis.call('ZADD', KEYS[2], ARGV[n + 1], ARGV[n])
  else
    redis.call('ZREM', KEYS[2], ARGV[n])
  end
end
if #ARGV > #KEYS + 1 then
  -- A bounded number each time, but more than was added: redis does nothing else meanwhile.
  local over = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', int(now), 'LIMIT', 0, 64 + #ARGV)
  if #over > 0 then redis.call('ZREM', KEYS[2], unpack(over)) end
  local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
  if last[2] then redis.call('PEXPIREAT', KEYS[2], int(tonumber(last[2]) + 1)) end
end
return 'done'
