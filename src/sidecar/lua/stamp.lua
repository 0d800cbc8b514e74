-- ARGV: a stamp, for when there is none
-- Answers what the key is, and the stamp of that: whatever changes the value removes it, so what is computed from the value
-- counts as long as the stamp is there (`apply`). A sidecar that is lost has no stamp.
local stamp = s.c
if not stamp then
  stamp = ARGV[1]
  redis.call('HSET', side, 'c', stamp)
end
keep()
local dirty = s.d or ''
if s.d == 'x' then return {'deleted', version, stamp, dirty} end
local kind = redis.call('TYPE', entry).ok
if kind == 'string' then return {'text', version, stamp, dirty, redis.call('GET', entry)} end
if kind == 'hash' then return {'hash', version, stamp, dirty, redis.call('HGETALL', entry)} end
if kind ~= 'none' then return {'other', version, stamp, dirty} end
if s.d then return {'lost', version, stamp, dirty} end
if ahead('n') > 0 then return {'negative', version, stamp, dirty} end
return {'missing', version, stamp, dirty}
