-- ARGV: token, longest time that the statement may take (ms)
local token, ends = ARGV[1], now() + ARGV[2]
if d then return {'dirty', version} end
local others = ahead(we) > 0
if others then ends = math.max(ends, tonumber(we)) end
-- Of several at once nobody knows whose row is the last: then none of them stores its own.
w, we = others and w ~= token and '*' or token, int(ends)
call('HSET', side, 'w', w, 'we', we)
drop_lease()
drop_stamp()
call('DEL', entry)
keep()
return {'begun', version}
