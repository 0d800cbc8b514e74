-- What `apply` does mostly, before anything is made ready for the rest: a dirty text, over something older beside which there
-- is nothing but versions and the time of a fill.
if ARGV[2] == 's' and ARGV[3] == '1' and ARGV[5] == '' and ARGV[6] == '' then
  local call, side, mine = redis.call, KEYS[2], ARGV[1]
  local list, version, dirty, more = redis.pcall('HGETALL', side), '', false, false
  if list.err then more = true end
  for at = 1, #list, 2 do
    local name = list[at]
    if name == 'v' then
      version = list[at + 1]
    elseif name == 'd' then
      dirty = true
    elseif name ~= 'f' then
      more = true
    end
  end
  if not more and (#version < #mine or (#version == #mine and version < mine)) then
    call('HSET', side, 'v', mine, 'd', 'p')
    call('SET', KEYS[1], ARGV[7])
    if list[1] and not dirty then call('PERSIST', side) end
    return {'applied', mine, 0}
  end
end
