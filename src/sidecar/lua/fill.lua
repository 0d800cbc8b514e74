-- ARGV: token, kind ('s' text, 'h' hash, 'a' no row, 'n' nothing was loaded), life of the entry (ms, 0 = for ever), life of
-- a negative marker (ms), generation ('' = none), '1' to replace an entry, '1' if the source may lag, value or fields
local token, kind, ttl, negative = ARGV[before + 1], ARGV[before + 2], ARGV[before + 3], tonumber(ARGV[before + 4])
local generation, replace, lags = ARGV[before + 5], ARGV[before + 6] == '1', ARGV[before + 7] == '1'
local why
if l ~= token then
  if l ~= '!' .. token then return {'refused', version, 'lease'} end
  why = 'through'
elseif kind == 'n' then why = 'released'
elseif d then why = 'dirty'
elseif lags and ahead(t) > 0 then why = 'tombstone'
elseif kind == 's' and not replace then
  -- The text is stored before anything else, in one step with the look whether an entry is there.
  if not store(kind, 8, ttl, true) then why = 'present' end
elseif not replace and call('EXISTS', entry) == 1 then why = 'present' end
if why then
  call('HDEL', side, 'l', 'le')
  l, le = false, false
  keep()
  return {'refused', version, why}
end
-- The time of the fill is there for who looks, and so that the sidecar is: an entry without one may be missed by the
-- scan of an invalidation.
call('HSET', side, 'f', int(now()))
if generation ~= '' then
  call('HSET', side, 'g', generation)
elseif g then
  call('HDEL', side, 'g')
end
g = generation ~= '' and generation
-- A row that is still missing is the same state as before.
if c and (kind ~= 'a' or call('EXISTS', entry) == 1) then drop_stamp() end
if kind == 'a' then
  call('DEL', entry)
  if negative > 0 then
    n = int(now() + negative)
    call('HSET', side, 'n', n)
  end
  call('HDEL', side, 'l', 'le')
else
  if kind ~= 's' or replace then store(kind, 8, ttl) end
  call('HDEL', side, 'l', 'le', 'n')
  n = false
end
-- A lease that has not run out leaves a sidecar that lives for long enough.
local lives = kind ~= 'a' and not g and ahead(le) > 0
l, le = false, false
if not lives then keep() end
return {'stored', version}
