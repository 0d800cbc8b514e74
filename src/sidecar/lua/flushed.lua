-- ARGV: version, what is committed ('=' what was applied, 's' text, 'h' hash, 'x' no row), life of the entry (ms, 0 = for
-- ever), value or fields
local mine, kind, ttl = ARGV[1], ARGV[2], tonumber(ARGV[3])
if newer(version, mine) then return {'newer', version} end
local gone, equal = s.v == nil, version == mine
if equal and kind == '=' then
  -- Leases granted before the commit go as well: what they load may be older than it.
  redis.call('HDEL', side, 'd', 'l', 'le', 'n')
  if ttl > 0 then redis.call('PEXPIRE', entry, int(ttl)) else redis.call('PERSIST', entry) end
else
  redis.call('HDEL', side, 'd', 'l', 'le', 'n', 'c')
  -- Nothing is known of the key: it may hold something newer, or older. The next reader finds out.
  if gone or kind == '=' or kind == 'x' then
    redis.call('DEL', entry)
  else
    store_or_drop(kind, 4, ttl)
  end
  pcall(redis.call, 'HSET', side, 'v', mine)
end
keep()
return {equal and 'cleared' or 'repaired', mine}
