-- ARGV: life of a tombstone (ms, 0 = none), '1' to answer as DEL does
local tombstone = tonumber(ARGV[1])
redis.call('HDEL', side, 'l', 'le', 'n', 'c')
if tombstone > 0 then
  pcall(redis.call, 'HSET', side, 't', int(now + math.max(tombstone, ahead('t'))))
end
-- A dirty entry is newer than the row that it will become: it stays.
local dropped = 0
if not s.d then dropped = redis.call('DEL', entry) end
keep()
if ARGV[2] == '1' then return dropped end
return {s.d and 'dirty' or 'dropped', version, int(dropped)}
