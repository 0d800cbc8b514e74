-- One key at a time: its entry and its sidecar, in one slot. Of the arguments the first `common` are ARGV[shared + 1 ..], its
-- own ARGV[before + 1 .. last]. A full node refuses a script's first write, if that could take memory, and none after it: so
-- what a script writes first decides whether a full node runs all of it or nothing.
local call = redis.call
local entry, side, shared, before, last
-- What the sidecar holds, by the names of its fields; nil or false where it does not. A script that changes a field changes
-- it here.
local v, d, l, le, n, t, w, we, g, f, c, e
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

local version, endless
-- Whether the sidecar is the short form of a lease: its token as a text, in place of a hash of nothing but `l` and `le`. It
-- goes 60 s after the lease ends.
local bare

local function open()
  local list, has = redis.pcall('HGETALL', side), {}
  bare = list.err
  if bare then
    has.l = call('GET', side)
    has.le = int(now() + call('PTTL', side) - 60000)
  else
    for at = 1, #list, 2 do has[list[at]] = list[at + 1] end
  end
  v, d, l, le, n, t, w, we, g, f, c, e =
    has.v, has.d, has.l, has.le, has.n, has.t, has.w, has.we, has.g, has.f, has.c, has.e
  version = v or '0'
  -- A dirty sidecar has no end yet, nor has one that is not there.
  endless = d or not (v or f or l or n or t or w or g or c)
end

-- As `open`, where that is known to be the lease of this token in its short form.
local function only_lease(token)
  v, d, l, le, n, t, w, we, g, f, c, e = nil, nil, token
  bare, version, endless = true, '0', false
end

-- Makes a hash of a lease in its short form: what changes a sidecar changes fields.
local function widen()
  if not bare then return end
  bare = false
  call('DEL', side)
  call('HSET', side, 'l', l, 'le', le)
  call('PEXPIREAT', side, int(le + 60000))
end

-- How long a time is ahead (ms).
local function ahead(ends) return ends and math.max((tonumber(ends) or 0) - now(), 0) or 0 end

-- Versions are decimal texts without leading zeros: a number of Lua would lose the last digits of a large one.
local function newer(a, b) return #a > #b or (#a == #b and a > b) end

-- Nobody may store what was loaded before now, nor wait for it, nor believe that there is no row.
local function drop_lease()
  if l or n then call('HDEL', side, 'l', 'le', 'n') end
  l, le, n = false, false, false
end

-- The lease is over.
local function give_back()
  if bare then call('DEL', side) else call('HDEL', side, 'l', 'le') end
  l, le = false, false
end

-- What was computed from the value does not count any more.
local function drop_stamp()
  if c then call('HDEL', side, 'c') end
  c = false
end

-- The life of a lease in its short form, from that of the lease (ms, the same for all keys of a request).
local forgotten
local function until_forgotten(life)
  forgotten = forgotten or int(life + 60000)
  return forgotten
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
-- hash. `absent`: only where there is none, which is looked at for a text (false if there is one), and known for a hash.
local function store(kind, from, ttl, absent)
  from = before + from
  if kind == 's' then
    if ttl ~= '0' and absent then return call('SET', entry, ARGV[from], 'PX', ttl, 'NX') end
    if absent then return call('SET', entry, ARGV[from], 'NX') end
    if ttl ~= '0' then return call('SET', entry, ARGV[from], 'PX', ttl) end
    return call('SET', entry, ARGV[from])
  end
  if not absent then call('DEL', entry) end
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
