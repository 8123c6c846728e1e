-- Erases the words of records. What they revoke stays revoked, and the log has no words.
-- KEYS 1 epoch  2… records
-- ARGV 1 id of the server, or zeros if it does not tell  2… the words that each record gets
local server, settling =
  string.match(redis.call('GET', KEYS[1]) or '', '^3 %x+ %x+ (%x+) %d+ (%d+) ')
-- At another server than the one that is known it would be erased in vain.
local is_elsewhere = not server or server ~= ARGV[1] and ARGV[1] ~= string.rep('0', 16)
if is_elsewhere or settling ~= '0' then return 'settling' end

local erased = {}
for n = 2, #KEYS do
  local value = redis.call('GET', KEYS[n])
  if value then
    local numbers, ends, at, words =
      string.match(value, '^(3 %d+ %d+ %d+ %d+ (%d+) %S+) (%d+) (.*)$')
    if not numbers then return redis.error_reply('UNREADABLE a record') end
    if words ~= ARGV[n] then
      -- A millisecond later than the change that said these words: a process that writes that one
      -- again, as after a change of server, does not bring them back.
      local changed_at = string.format('%.0f', tonumber(at) + 1)
      local record = table.concat({ numbers, changed_at, ARGV[n] }, ' ')
      erased[#erased + 1] = { KEYS[n], record, ends }
    end
  end
end
for _, record in ipairs(erased) do
  redis.call('SET', record[1], record[2], 'PXAT', record[3])
end
return 'done'
