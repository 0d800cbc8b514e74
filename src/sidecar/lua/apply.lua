-- ARGV: version, kind ('s' text, 'h' hash, 'x' deletion, 'a' a row is appended), '1' if dirty until it is flushed, life of
-- the entry where it is not (ms, 0 = for ever), the newest version it may follow ('' = any), the stamp under which it was
-- computed ('' = none), value or fields
local mine, kind, dirty, ttl = ARGV[1], ARGV[2], ARGV[3] == '1', tonumber(ARGV[4])
if newer(version, mine) then return {'behind', version} end
if ARGV[5] ~= '' and version ~= mine and newer(version, ARGV[5]) then return {'behind', version} end
if ARGV[6] ~= '' and version ~= mine and s.c ~= ARGV[6] then return {'behind', version} end
local had = redis.call('EXISTS', entry)
-- It was flushed before it came here: the database has it, nothing is dirty any more.
if version == mine and not s.d then return {'applied', mine, had} end
local flags = {s = 'p', h = 'p', x = 'x', a = 'a'}
redis.call('HSET', side, 'v', mine)
if dirty then redis.call('HSET', side, 'd', flags[kind]) else redis.call('HDEL', side, 'd') end
redis.call('HDEL', side, 'l', 'le', 'n', 'w', 'we', 'g', 'c')
if kind == 's' or kind == 'h' then
  -- Must not expire while dirty: an older row would come back from the database.
  if dirty then ttl = 0 end
  store(kind, 7, ttl)
else
  redis.call('DEL', entry)
end
keep()
return {'applied', mine, had}
