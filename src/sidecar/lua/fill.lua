-- ARGV, common: kind ('s' text, 'h' hash, 'a' no row, 'n' nothing was loaded), life of a negative marker (ms), generation
-- ('' = none), '1' to replace an entry, '1' if the source may lag; own: token, life of the entry (ms, 0 = for ever), value
-- or fields
-- Answers 1 for a row that is stored and leaves no sidecar.
local kind, negative, generation = ARGV[shared + 1], tonumber(ARGV[shared + 2]), ARGV[shared + 3]
local replace, lags = ARGV[shared + 4] == '1', ARGV[shared + 5] == '1'
local token, ttl = ARGV[before + 1], ARGV[before + 2]
if redis.pcall('GET', side) == token then only_lease(token) else open() end
local why
if l ~= token then
  if l ~= '!' .. token then return {'refused', version, 'lease'} end
  why = 'through'
elseif kind == 'n' then why = 'released'
elseif d then why = 'dirty'
elseif lags and ahead(t) > 0 then why = 'tombstone'
elseif kind == 's' and not replace then
  -- The text is stored before anything else, in one step with the look whether an entry is there.
  if not store(kind, 3, ttl, true) then why = 'present' end
elseif not replace and call('EXISTS', entry) == 1 then why = 'present' end
if why then
  give_back()
  if not bare then keep() end
  return {'refused', version, why}
end
if bare and kind ~= 'a' and generation == '' then
  if kind ~= 's' or replace then store(kind, 3, ttl, not replace) end
  give_back()
  return 1
end
if bare then give_back() end
local known = {'f', int(now())}
if generation ~= '' then known[3], known[4] = 'g', generation end
if kind == 'a' and negative > 0 then
  n = int(now() + negative)
  known[#known + 1], known[#known + 2] = 'n', n
end
call('HSET', side, unpack(known))
if g and generation == '' then call('HDEL', side, 'g') end
g = generation ~= '' and generation
-- A row that is still missing is the same state as before.
if c and (kind ~= 'a' or replace and call('EXISTS', entry) == 1) then drop_stamp() end
if kind == 'a' then
  if replace then call('DEL', entry) end
elseif kind ~= 's' or replace then
  store(kind, 3, ttl, not replace)
end
-- A lease that has not run out leaves a sidecar that lives for long enough.
local lives = kind ~= 'a' and not g and ahead(le) > 0
if kind ~= 'a' and n then
  call('HDEL', side, 'n')
  n = false
end
if l then give_back() end
if not lives then keep() end
return {'stored', version}
