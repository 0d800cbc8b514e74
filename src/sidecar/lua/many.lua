-- KEYS: an entry, which says where this is to run; ARGV, for each of many keys that this node owns: the number of what
-- follows, the sidecar, the arguments. A key of another node is an error in its place.
local answers, all, prefix = {}, #ARGV, #'dsproxy:{abcd}:m:'
last = 0
local function of_one()
  open(string.sub(ARGV[before], prefix + 1), ARGV[before])
  return run()
end
while last < all do
  before, last = last + 2, last + 1 + ARGV[last + 1]
  local done, answer = pcall(of_one)
  if not done and type(answer) ~= 'table' then answer = redis.error_reply(tostring(answer)) end
  answers[#answers + 1] = answer
end
return answers
