-- ARGV: token, longest time that the statement may take (ms)
local token, ends = ARGV[before + 1], now() + ARGV[before + 2]
if d then return {'dirty', version} end
-- The tokens of all that are under way. Of several at once nobody knows whose row is the last: '*' before them says that none
-- of them may store its own.
local marks = ''
if ahead(we) > 0 then
  marks = w or ''
  ends = math.max(ends, tonumber(we))
end
if marks == '' then
  marks = token
elseif not string.find(marks, token, 1, true) then
  if string.sub(marks, 1, 1) ~= '*' then marks = '*' .. marks end
  marks = marks .. ',' .. token
end
w, we = marks, int(ends)
call('HSET', side, 'w', w, 'we', we)
drop_lease()
drop_stamp()
local had = call('DEL', entry)
keep()
return {'begun', version, w ~= token and 1 or 0, had}
