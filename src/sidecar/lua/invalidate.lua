-- ARGV, common: life of a tombstone (ms, 0 = none), '1' to answer as DEL does
local tombstone = tonumber(ARGV[shared + 1])
-- A full node never refuses this, and then nothing of what follows.
call('HDEL', side, 'l', 'le', 'n', 'c')
l, le, n, c = false, false, false, false
if tombstone > 0 then
  t = int(now() + math.max(tombstone, ahead(t)))
  pcall(call, 'HSET', side, 't', t)
end
-- A dirty entry is newer than the row that it will become: it stays.
local dropped = 0
if not d then dropped = call('DEL', entry) end
keep()
if ARGV[shared + 2] == '1' then return dropped end
return {d and 'dirty' or 'dropped', version, int(dropped)}
