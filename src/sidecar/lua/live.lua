-- ARGV: the stamp under which the entry was seen, when it ends (ms since 1970, 0 = never)
if c ~= ARGV[before + 1] then return {'behind', version} end
if d then
  -- Must not expire while dirty: it begins to when it is flushed.
  call('HSET', side, 'e', ARGV[before + 2])
elseif ARGV[before + 2] == '0' then
  call('PERSIST', entry)
else
  call('PEXPIREAT', entry, ARGV[before + 2])
end
return {'applied', version, 0}
