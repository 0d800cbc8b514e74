-- What is there, with its version. Changes nothing.
if d == 'x' then return {'deleted', version} end
local kind = call('TYPE', entry).ok
if kind == 'string' then return {'text', version, call('GET', entry)} end
if kind == 'hash' then return {'hash', version, call('HGETALL', entry)} end
if kind ~= 'none' then return {'other', version, kind} end
return {'negative', version}
