-- ARGV: token, kind ('s' text, 'h' hash, 'a' no row, 'n' nothing was loaded), life of the entry (ms, 0 = for ever), life of
-- a negative marker (ms), generation ('' = none), '1' to replace an entry, '1' if the source may lag, value or fields
local token, kind, ttl, negative = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local generation, replace, lags = ARGV[5], ARGV[6] == '1', ARGV[7] == '1'
local why
if s.l == '!' .. token then why = 'through'
elseif s.l ~= token then return {'refused', version, 'lease'}
elseif kind == 'n' then why = 'released'
elseif s.d then why = 'dirty'
elseif lags and ahead('t') > 0 then why = 'tombstone'
elseif not replace and redis.call('EXISTS', entry) == 1 then why = 'present' end
if why then
  redis.call('HDEL', side, 'l', 'le')
  keep()
  return {'refused', version, why}
end
-- The time of the fill is there for who looks, and so that the sidecar is: an entry without one may be missed by the
-- scan of an invalidation.
redis.call('HSET', side, 'f', int(now))
if generation == '' then redis.call('HDEL', side, 'g') else redis.call('HSET', side, 'g', generation) end
-- What somebody computes from the old state does not count any more; a row that is still missing is the same state.
if kind ~= 'a' or redis.call('EXISTS', entry) == 1 then redis.call('HDEL', side, 'c') end
if kind == 'a' then
  redis.call('DEL', entry)
  if negative > 0 then redis.call('HSET', side, 'n', int(now + negative)) end
  redis.call('HDEL', side, 'l', 'le')
else
  store(kind, 8, ttl)
  redis.call('HDEL', side, 'l', 'le', 'n')
end
keep()
return {'stored', version}
