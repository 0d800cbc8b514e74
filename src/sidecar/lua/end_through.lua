-- ARGV: token, what is committed ('s' text, 'h' hash, 'x' no row, 'n' nothing: it was rolled back, '?' unknown), life of the
-- entry (ms, 0 = for ever), version, value or fields
local token, kind, ttl, mine = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
redis.call('HDEL', side, 'l', 'le', 'n', 'c')
if s.d then
  redis.call('HDEL', side, 'w', 'we')
  keep()
  return {'lost', version}
end
local ours = s.w == token and kind ~= '?'
if not ours then
  -- Another one that is under way must not store its row: it may be older than ours.
  redis.call('DEL', entry)
  if ahead('we') > 0 then pcall(redis.call, 'HSET', side, 'w', '*') end
  keep()
  return {'lost', version}
end
if kind == 'n' then
  redis.call('DEL', entry)
else
  if newer(mine, version) then
    pcall(redis.call, 'HSET', side, 'v', mine)
    version = mine
  end
  if kind == 'x' then redis.call('DEL', entry) else store_or_drop(kind, 5, ttl) end
end
redis.call('HDEL', side, 'w', 'we')
keep()
return {'ended', version}
