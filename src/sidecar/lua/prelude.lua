-- One key at a time: its entry and its sidecar, in one slot, and its arguments ARGV[before + 1 .. last]. A full node refuses a
-- script's first write, if that could take memory, and none after it: so what a script writes first decides whether a full
-- node runs all of it or nothing.
local call = redis.call
local entry, side, before, last
-- What the sidecar holds, by the names of its fields; nil or false where it does not. A script that changes a field changes
-- it here.
local v, d, l, le, n, t, w, we, g, f, c, e
local version, endless

local function open(key, beside)
  entry, side = key, beside
  local list, has = call('HGETALL', side), {}
  for at = 1, #list, 2 do has[list[at]] = list[at + 1] end
  v, d, l, le, n, t, w, we, g, f, c, e =
    has.v, has.d, has.l, has.le, has.n, has.t, has.w, has.we, has.g, has.f, has.c, has.e
  version = v or '0'
  -- A dirty sidecar has no end yet, nor has one that is not there.
  endless = d or not (v or f or l or n or t or w or g or c)
end

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
  if not (le or n or t or we or g) then return call('PEXPIRE', side, '60000') end
  local life = math.max(ahead(le), ahead(n), ahead(t), ahead(we))
  if g then
    local ttl = call('PTTL', entry)
    if ttl == -1 then return call('PERSIST', side) end
    life = math.max(life, ttl)
  end
  call('PEXPIRE', side, life + 60000)
end

-- Stores the arguments from this one on as the entry, for so long (ms as a text, '0' = for ever): one text, or the fields of a
-- hash. A text may be for an entry that is not there only: false if it is.
local function store(kind, from, ttl, absent)
  from = before + from
  if kind == 's' then
    if ttl ~= '0' and absent then return call('SET', entry, ARGV[from], 'PX', ttl, 'NX') end
    if absent then return call('SET', entry, ARGV[from], 'NX') end
    if ttl ~= '0' then return call('SET', entry, ARGV[from], 'PX', ttl) end
    return call('SET', entry, ARGV[from])
  end
  call('DEL', entry)
  for at = from, last, 1000 do
    call('HSET', entry, unpack(ARGV, at, math.min(at + 999, last)))
  end
  if ttl ~= '0' then call('PEXPIRE', entry, ttl) end
  return true
end

-- The same where it may not fail: rather no entry than an outdated one.
local function store_or_drop(kind, from, ttl)
  if not pcall(store, kind, from, ttl) then call('DEL', entry) end
end
