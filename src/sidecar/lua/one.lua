-- KEYS: the entry and its sidecar.
shared, before, last = 0, common, #ARGV
entry, side = KEYS[1], KEYS[2]
return run()
