-- ARGV: token, longest time that the statement may take (ms)
local token, ends = ARGV[1], now + ARGV[2]
if s.d then return {'dirty', version} end
local contested = ahead('we') > 0 and s.w ~= token
if ahead('we') > 0 then ends = math.max(ends, tonumber(s.we)) end
-- Of several at once nobody knows whose row is the last: then none of them stores its own.
redis.call('HSET', side, 'w', contested and '*' or token, 'we', int(ends))
redis.call('HDEL', side, 'l', 'le', 'n', 'c')
redis.call('DEL', entry)
keep()
return {'begun', version}
