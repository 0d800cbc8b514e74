-- ARGV, common: life of the lease (ms), '1' to refresh an entry that is there, the generation that an entry must be of
-- ('' = any); own: token
-- Answers 1 for a lease of a key of which nothing is known, which is what a missing key is mostly.
local life, refresh, token = ARGV[shared + 1], ARGV[shared + 2] == '1', ARGV[before + 1]
if call('EXISTS', side, entry) == 0 then
  call('SET', side, token, 'PX', until_forgotten(life))
  return 1
end
open()
if ARGV[shared + 3] ~= '' and not d then refresh = refresh or g ~= ARGV[shared + 3] end
if d == 'x' then return {'deleted', version} end
if not refresh then
  local kind = call('TYPE', entry).ok
  if kind == 'string' then return {'text', version, call('GET', entry)} end
  if kind == 'hash' then return {'hash', version, call('HGETALL', entry)} end
  if kind ~= 'none' then return {'other', version, kind} end
end
if d == 'p' then return {'lost', version} end
if not refresh and ahead(n) > 0 then return {'negative', version} end
if l and l ~= token and l ~= '!' .. token and ahead(le) > 0 then return {'wait', version, int(ahead(le))} end
if bare or endless and not d then
  call('SET', side, token, 'PX', until_forgotten(life))
  return 1
end
-- What is loaded while a write-through is under way may be older than its row: this lease lets others wait, not store.
l = (ahead(we) > 0 or (l and l ~= token and l == '!' .. token)) and '!' .. token or token
le = int(now() + life)
call('HSET', side, 'l', l, 'le', le)
keep()
return {'granted', version, t and int(ahead(t)) or '0'}
