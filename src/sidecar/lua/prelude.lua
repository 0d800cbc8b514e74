-- KEYS: the entry and its sidecar, in one slot. A full node refuses a script's first write, if that could take memory,
-- and none after it: so what a script writes first decides whether a full node runs all of it or nothing.
local entry, side = KEYS[1], KEYS[2]
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local names = {'v', 'd', 'l', 'le', 'n', 't', 'w', 'we', 'c'}
local s = {}
for at, value in ipairs(redis.call('HMGET', side, unpack(names))) do
  if value then s[names[at]] = value end
end
local version = s.v or '0'

local function int(number) return string.format('%.0f', number) end

local function ahead(field) return math.max((tonumber(s[field]) or 0) - now, 0) end

-- Versions are decimal texts without leading zeros: a number of Lua would lose the last digits of a large one.
local function newer(a, b) return #a > #b or (#a == #b and a > b) end

-- Gives the sidecar the life that what it holds needs: for ever while dirty, else 60 s beyond the last thing that ends,
-- and as long as the entry where a generation was kept with it.
local function keep()
  if redis.call('HEXISTS', side, 'd') == 1 then return redis.call('PERSIST', side) end
  local ends = redis.call('HMGET', side, 'le', 'n', 't', 'we')
  local life = 0
  for at = 1, 4 do life = math.max(life, (tonumber(ends[at]) or 0) - now) end
  if redis.call('HEXISTS', side, 'g') == 1 then
    local ttl = redis.call('PTTL', entry)
    if ttl == -1 then return redis.call('PERSIST', side) end
    life = math.max(life, ttl)
  end
  return redis.call('PEXPIRE', side, int(life + 60000))
end

-- Stores ARGV[from..] as the entry: one text, or the fields of a hash.
local function store(kind, from, ttl)
  if kind == 's' then
    if ttl > 0 then return redis.call('SET', entry, ARGV[from], 'PX', int(ttl)) end
    return redis.call('SET', entry, ARGV[from])
  end
  redis.call('DEL', entry)
  for at = from, #ARGV, 1000 do
    redis.call('HSET', entry, unpack(ARGV, at, math.min(at + 999, #ARGV)))
  end
  if ttl > 0 then redis.call('PEXPIRE', entry, int(ttl)) end
end

-- The same where it may not fail: rather no entry than an outdated one.
local function store_or_drop(kind, from, ttl)
  if not pcall(store, kind, from, ttl) then redis.call('DEL', entry) end
end
