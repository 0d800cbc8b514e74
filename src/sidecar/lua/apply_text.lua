-- ARGV: version, text
-- What `apply` does of a dirty text, mostly over something older beside which there is nothing but versions and the time of a
-- fill. Answers 1 then. Nothing else is made ready before, and the arguments that are always the same are left out.
do
  local call, side, mine = redis.call, KEYS[2], ARGV[1]
  local list, version, dirty = redis.pcall('HGETALL', side), '', false
  local more = list.err
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
    call('SET', KEYS[1], ARGV[2])
    if list[1] and not dirty then call('PERSIST', side) end
    return 1
  end
end
local ARGV = {ARGV[1], 's', '1', '0', '', '', ARGV[2]}
