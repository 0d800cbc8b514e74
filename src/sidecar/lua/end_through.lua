-- ARGV: token, what is committed ('s' text, 'h' hash, 'x' no row, 'n' nothing: it was rolled back, '?' unknown), life of the
-- entry (ms, 0 = for ever), version, value or fields
local token, kind, ttl, mine = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- A full node never refuses this, and then nothing of what follows.
call('HDEL', side, 'l', 'le', 'n', 'c')
l, le, n, c = false, false, false, false
if not d and (w ~= token or kind == '?') then
  -- Another one that is under way must not store its row: it may be older than ours.
  call('DEL', entry)
  if ahead(we) > 0 then pcall(call, 'HSET', side, 'w', '*') end
  keep()
  return {'lost', version}
end
local lost = d
if not lost then
  if kind ~= 'n' and newer(mine, version) then
    pcall(call, 'HSET', side, 'v', mine)
    version = mine
  end
  if kind == 'n' or kind == 'x' then call('DEL', entry) else store_or_drop(kind, 5, ttl) end
end
call('HDEL', side, 'w', 'we')
w, we = false, false
keep()
return {lost and 'lost' or 'ended', version}
