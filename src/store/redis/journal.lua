-- Appends to one journal, and forgets what is too old or too much.
-- KEYS 1 journal  ARGV 1 entry  2 most entries, about  3 ms for which entries are kept
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'j', ARGV[1])
local oldest = now - tonumber(ARGV[3])
if oldest > 0 then redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f', oldest)) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
