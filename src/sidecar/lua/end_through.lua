-- ARGV: token, what is committed ('s' text, 'h' hash, 'x' no row, 'n' nothing: it was rolled back, '?' unknown), life of the
-- entry (ms, 0 = for ever), version, value or fields
local token, kind, ttl, mine = ARGV[before + 1], ARGV[before + 2], ARGV[before + 3], ARGV[before + 4]
-- A full node never refuses this, and then nothing of what follows.
call('HDEL', side, 'l', 'le', 'n', 'c')
l, le, n, c = false, false, false, false
-- It may be committed, whoever stores what: what was computed from an older value does not count any more.
if not d and kind ~= 'n' and newer(mine, version) then
  pcall(call, 'HSET', side, 'v', mine)
  version = mine
end
local lost = d or w ~= token or kind == '?'
if not d then
  if lost or kind == 'n' or kind == 'x' then call('DEL', entry) else store_or_drop(kind, 5, ttl) end
end
-- Others that are under way must not store their rows: they may be older than ours. Of one whose outcome is unknown the mark
-- stays until it runs out.
local left = {}
if lost and not d and ahead(we) > 0 then
  for other in string.gmatch(w or '', '[^*,]+') do
    if other ~= token or kind == '?' then left[#left + 1] = other end
  end
end
if #left > 0 then
  w = '*' .. table.concat(left, ',')
  pcall(call, 'HSET', side, 'w', w)
else
  call('HDEL', side, 'w', 'we')
  w, we = false, false
end
keep()
return {lost and 'lost' or 'ended', version}
