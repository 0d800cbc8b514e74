-- ARGV, common: what is committed ('=' what was applied, 's' text, 'h' hash, 'x' no row, '?' nobody knows any more); own:
-- version, life of the entry (ms, 0 = for ever), value or fields
-- Answers 1 mostly: the text of the row is stored in place of what was applied, and nothing else was known of the key.
local kind, mine, ttl = ARGV[shared + 1], ARGV[before + 1], ARGV[before + 2]
if kind == 's' and ttl ~= '0' then
  local list = redis.pcall('HGETALL', side)
  if list[1] == 'v' and list[2] == mine and (#list == 2 or #list == 4 and list[3] == 'd') then
    if list[3] then call('HDEL', side, 'd') end
    if redis.pcall('SET', entry, ARGV[before + 3], 'PX', ttl).err then call('DEL', entry) end
    call('PEXPIRE', side, '60000')
    return 1
  end
end
open()
widen()
if newer(version, mine) then return {'newer', version} end
local equal = version == mine
-- What is not dirty was flushed before, and what the database made of the row is there.
if kind == '?' then kind = equal and not d and '=' or 'x' end
-- Leases granted before the commit go as well: what they load may be older than it.
if l or n then
  call('HDEL', side, 'd', 'l', 'le', 'n')
elseif d then
  call('HDEL', side, 'd')
end
d, l, le, n = false, false, false, false
if equal and kind == '=' then
  if ttl ~= '0' then call('PEXPIRE', entry, ttl) else call('PERSIST', entry) end
else
  drop_stamp()
  -- Nothing is known of the key: it may hold something newer, or older. The next reader finds out.
  if not v or kind == '=' or kind == 'x' then call('DEL', entry) else store_or_drop(kind, 3, ttl) end
  if not equal then pcall(call, 'HSET', side, 'v', mine) end
end
-- Somebody has asked for another life meanwhile.
if e then
  call('HDEL', side, 'e')
  if equal and e == '0' then call('PERSIST', entry) elseif equal then call('PEXPIREAT', entry, e) end
  e = false
end
keep()
return {equal and 'cleared' or 'repaired', mine}
