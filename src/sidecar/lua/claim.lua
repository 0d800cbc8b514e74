-- KEYS: entries, each with its sidecar, then plain keys, all in one slot. ARGV: number of entries, per entry its version, the stamp
-- under which it was seen to be absent, its text; per plain key its value
-- All of them are set, dirty, or none: one of the stamps is gone, or one of the plain keys is there.
local n = tonumber(ARGV[1])
local function side_of(at) return KEYS[2 * at] end
for at = 1, n do
  entry, side = KEYS[2 * at - 1], side_of(at)
  open()
  widen()
end
local function arg(at, place) return ARGV[3 * at - 2 + place] end
for at = 1, n do
  -- It ran before, and its answer was lost.
  local known = call('HGET', side_of(at), 'v')
  if known == arg(at, 1) then return {'applied', known, 0} end
end
for at = 1, n do
  local known = call('HMGET', side_of(at), 'v', 'c')
  if known[2] ~= arg(at, 2) or known[1] and newer(known[1], arg(at, 1)) then return {'behind', known[1] or '0'} end
end
for at = 2 * n + 1, #KEYS do
  if call('EXISTS', KEYS[at]) == 1 then return {'present', '0'} end
end
for at = 1, n do
  call('HSET', side_of(at), 'v', arg(at, 1), 'd', 'p')
  call('HDEL', side_of(at), 'l', 'le', 'n', 'w', 'we', 'g', 'c', 'e')
  call('PERSIST', side_of(at))
  call('SET', KEYS[2 * at - 1], arg(at, 3))
end
for at = 2 * n + 1, #KEYS do call('SET', KEYS[at], ARGV[1 + n + at]) end
return {'applied', arg(1, 1), 0}
