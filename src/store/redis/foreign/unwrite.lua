-- Takes off what was listed for another program, if it still is what was written.
-- KEYS 1 key
-- ARGV 1 hash of what was written
local value = redis.call('GET', KEYS[1])
if value and redis.sha1hex(value) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return ''
