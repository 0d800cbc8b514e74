-- ARGV: a stamp
-- Answers the version; whatever was to be applied under an earlier stamp is not any more.
c = ARGV[before + 1]
call('HSET', side, 'c', c)
keep()
return {'probed', version}
