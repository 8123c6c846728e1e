-- Lists something for another program.
-- KEYS 1 key
-- ARGV 1 value  2 milliseconds to live  3… values that may be written over
-- What else stands there is left as it is, and kept for longer if need be. Says by a hash what was
-- written, or nothing.
local value = redis.call('GET', KEYS[1])
local is_free = not value
for n = 3, #ARGV do
  if value == ARGV[n] then is_free = true end
end
if is_free then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return redis.sha1hex(ARGV[1])
end
local left = redis.call('PTTL', KEYS[1])
if left >= 0 and left < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return ''
