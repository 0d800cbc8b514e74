-- ARGV: token, life of the lease (ms), '1' to refresh an entry that is there, the generation that an entry must be of
-- ('' = any)
local token, refresh = ARGV[1], ARGV[3] == '1'
if ARGV[4] ~= '' and not s.d then refresh = refresh or redis.call('HGET', side, 'g') ~= ARGV[4] end
if s.d == 'x' then return {'deleted', version} end
if not refresh then
  local kind = redis.call('TYPE', entry).ok
  if kind == 'string' then return {'text', version, redis.call('GET', entry)} end
  if kind == 'hash' then return {'hash', version, redis.call('HGETALL', entry)} end
  if kind ~= 'none' then return {'other', version, kind} end
end
if s.d == 'p' then return {'lost', version} end
if not refresh and ahead('n') > 0 then return {'negative', version} end
if s.l and s.l ~= token and s.l ~= '!' .. token and ahead('le') > 0 then
  return {'wait', version, int(ahead('le'))}
end
-- What is loaded while a write-through is under way may be older than its row: this lease lets others wait, not store.
local lease = token
if ahead('we') > 0 or s.l == '!' .. token then lease = '!' .. token end
redis.call('HSET', side, 'l', lease, 'le', int(now + ARGV[2]))
keep()
return {'granted', version, int(ahead('t'))}
