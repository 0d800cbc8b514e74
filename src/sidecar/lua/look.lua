-- What is there, with its version. Changes nothing.
if s.d == 'x' then return {'deleted', version} end
local kind = redis.call('TYPE', entry).ok
if kind == 'string' then return {'text', version, redis.call('GET', entry)} end
if kind == 'hash' then return {'hash', version, redis.call('HGETALL', entry)} end
if kind ~= 'none' then return {'other', version, kind} end
return {'negative', version}
