-- KEYS: the entry and its sidecar, in one slot. A full node refuses a script's first write, if that could take memory,
-- and none after it: so what a script writes first decides whether a full node runs all of it or nothing.
local call = redis.call
local entry, side = KEYS[1], KEYS[2]
-- What the sidecar holds, by the names of its fields; false where it does not. A script that changes a field changes it here.
local v, d, l, le, n, t, w, we, g, f, c, e =
  unpack(call('HMGET', side, 'v', 'd', 'l', 'le', 'n', 't', 'w', 'we', 'g', 'f', 'c', 'e'))
local version = v or '0'
-- A dirty sidecar has no end yet, nor has one that is not there.
local endless = d or not (v or f or l or n or t or w or g or c)

-- The node's time in ms; asked for once, by the scripts that need it.
local clock
local function now()
  if not clock then
    local time = call('TIME')
    clock = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return clock
end

local function int(number) return string.format('%.0f', number) end

-- How long a time is ahead (ms).
local function ahead(ends) return ends and math.max((tonumber(ends) or 0) - now(), 0) or 0 end

-- Versions are decimal texts without leading zeros: a number of Lua would lose the last digits of a large one.
local function newer(a, b) return #a > #b or (#a == #b and a > b) end

-- Nobody may store what was loaded before now, nor wait for it, nor believe that there is no row.
local function drop_lease()
  if l or n then call('HDEL', side, 'l', 'le', 'n') end
  l, le, n = false, false, false
end

-- What was computed from the value does not count any more.
local function drop_stamp()
  if c then call('HDEL', side, 'c') end
  c = false
end

-- Gives the sidecar the life that what it holds needs: for ever while dirty, else 60 s beyond the last thing that ends,
-- and as long as the entry where a generation was kept with it.
local function keep()
  if d then
    if not endless then call('PERSIST', side) end
    return
  end
  local life = math.max(ahead(le), ahead(n), ahead(t), ahead(we))
  if g then
    local ttl = call('PTTL', entry)
    if ttl == -1 then return call('PERSIST', side) end
    life = math.max(life, ttl)
  end
  call('PEXPIRE', side, int(life + 60000))
end

-- Stores ARGV[from..] as the entry: one text, or the fields of a hash.
local function store(kind, from, ttl)
  if kind == 's' then
    if ttl > 0 then return call('SET', entry, ARGV[from], 'PX', int(ttl)) end
    return call('SET', entry, ARGV[from])
  end
  call('DEL', entry)
  for at = from, #ARGV, 1000 do
    call('HSET', entry, unpack(ARGV, at, math.min(at + 999, #ARGV)))
  end
  if ttl > 0 then call('PEXPIRE', entry, int(ttl)) end
end

-- The same where it may not fail: rather no entry than an outdated one.
local function store_or_drop(kind, from, ttl)
  if not pcall(store, kind, from, ttl) then call('DEL', entry) end
end
