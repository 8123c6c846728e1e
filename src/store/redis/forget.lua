-- Forgets what is over: a bounded number each time, because redis does nothing else meanwhile.
-- KEYS 1 meta  2… sorted sets of which the scores are ends
-- ARGV 1 who asks  2 ms for which no other process has to ask once something was over
--      3 most members of each set
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end

-- Another process is at it. After the clock was set back, its claim may lie far ahead, and counts
-- for nothing.
local holder, ends = unpack(redis.call('HMGET', KEYS[1], 'sweeper', 'swept_until'))
local left = (tonumber(ends or 0) or 0) - now
if holder and holder ~= ARGV[1] and left > 0 and left <= tonumber(ARGV[2]) then
  return { 'busy', int(left) }
end

local removed, first = 0, nil
for n = 2, #KEYS do
  local over = redis.call('ZRANGEBYSCORE', KEYS[n], '-inf', int(now), 'LIMIT', 0, tonumber(ARGV[3]))
  if #over > 0 then redis.call('ZREM', KEYS[n], unpack(over)) end
  removed = removed + #over
  local next = redis.call('ZRANGEBYSCORE', KEYS[n], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if next[2] then first = math.min(first or tonumber(next[2]), tonumber(next[2])) end
end
-- A full redis refuses this, and the members are removed all the same. A key that the writing
-- script has not made has no expiry, so none is made here.
if removed > 0 and redis.call('HMGET', KEYS[1], 'epoch')[1] then
  redis.pcall('HSET', KEYS[1], 'sweeper', ARGV[1], 'swept_until', int(now + tonumber(ARGV[2])))
end
return { first and int(math.max(0, first - now)) or 'none', int(removed) }
