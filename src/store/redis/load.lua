-- Reads documents and records of one shard, with the time at which they were so.
-- KEYS the epoch, then whatever is asked for
local time = redis.call('TIME')
local values = redis.call('MGET', unpack(KEYS))
table.insert(values, 1, string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)))
return values
