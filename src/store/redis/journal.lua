-- Appends to one journal, and forgets what is too old or too much.
-- KEYS 1 journal  ARGV 1 entry  2 most entries, about  3 ms for which entries are kept
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function int(number) return string.format('%.0f', number) end
local oldest, ends = now - tonumber(ARGV[3]), int(now + tonumber(ARGV[3]))
-- What expires is settled before anything is written: a user without one of these rights leaves no
-- journal behind that nobody forgets.
local has_end = redis.call('PEXPIREAT', KEYS[1], ends) == 1
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
-- One entry is added at a time, so it is enough to trim by the age or by the number, in turn.
if first and tonumber(string.match(first[1], '^%d+')) < oldest then
  redis.call('XADD', KEYS[1], 'MINID', int(oldest), '*', 'j', ARGV[1])
else
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'j', ARGV[1])
end
if not has_end then redis.call('PEXPIREAT', KEYS[1], ends) end
return 1
