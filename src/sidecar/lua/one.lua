-- KEYS: the entry and its sidecar.
before, last = 0, #ARGV
open(KEYS[1], KEYS[2])
return run()
