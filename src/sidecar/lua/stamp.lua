-- ARGV: a stamp, for when there is none
-- Answers what the key is, and the stamp of that: whatever changes the value removes it, so what is computed from the value
-- counts as long as the stamp is there (`apply`). A sidecar that is lost has no stamp.
if not c then
  c = ARGV[before + 1]
  call('HSET', side, 'c', c)
end
keep()
local dirty = d or ''
if d == 'x' then return {'deleted', version, c, dirty} end
local kind = call('TYPE', entry).ok
if kind == 'string' then return {'text', version, c, dirty, call('GET', entry)} end
if kind == 'hash' then return {'hash', version, c, dirty, call('HGETALL', entry)} end
if kind ~= 'none' then return {'other', version, c, dirty} end
if d then return {'lost', version, c, dirty} end
if ahead(n) > 0 then return {'negative', version, c, dirty} end
return {'missing', version, c, dirty}
