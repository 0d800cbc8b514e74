-- ARGV: version, kind ('s' text, 'h' hash, 'x' deletion, 'a' a row is appended), '1' if dirty until it is flushed, life of
-- the entry where it is not (ms, 0 = for ever), the newest version it may follow ('' = any), the stamp under which it was
-- computed ('' = none), value or fields
-- Answers, for a deletion, whether there was an entry.
local mine, kind, ttl = ARGV[before + 1], ARGV[before + 2], ARGV[before + 4]
if newer(version, mine) then return {'behind', version} end
if ARGV[before + 5] ~= '' and version ~= mine and newer(version, ARGV[before + 5]) then return {'behind', version} end
if ARGV[before + 6] ~= '' and version ~= mine and c ~= ARGV[before + 6] then return {'behind', version} end
local had = 0
if kind == 'x' then had = call('EXISTS', entry) end
-- It was flushed before it came here: the database has it, nothing is dirty any more.
if version == mine and not d then return {'applied', mine, had} end
local row = kind == 's' or kind == 'h'
if ARGV[before + 3] == '1' then
  -- Must not expire while dirty: an older row would come back from the database.
  d, ttl = row and 'p' or kind, '0'
  call('HSET', side, 'v', mine, 'd', d)
else
  call('HSET', side, 'v', mine)
  if d then call('HDEL', side, 'd') end
  d = false
end
if l or n or w or g or c or e then call('HDEL', side, 'l', 'le', 'n', 'w', 'we', 'g', 'c', 'e') end
l, le, n, w, we, g, c, e = false, false, false, false, false, false, false, false
if row then store(kind, 7, ttl) else call('DEL', entry) end
keep()
return {'applied', mine, had}
