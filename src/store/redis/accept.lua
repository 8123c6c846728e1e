-- Notes which targets layers accept, and forgets what was not said again for long.
-- KEYS 1 what layers accept, by when they last said so  ARGV 1 ms for which it counts  2… JSON
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end
local ends = int(now + tonumber(ARGV[1]))
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', int(now - tonumber(ARGV[1])))
-- A user without the right leaves nothing behind that does not expire. If all was too old, there is
-- no key any more.
local has_end = redis.call('PEXPIREAT', KEYS[1], ends) == 1
for n = 2, #ARGV do redis.call('ZADD', KEYS[1], int(now), ARGV[n]) end
if not has_end then redis.call('PEXPIREAT', KEYS[1], ends) end
return 1
