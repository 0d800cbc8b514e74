-- KEYS: an entry, which says where this is to run; ARGV: the number of arguments for each key, the common ones, then for each of
-- many keys that this node owns the sidecar and its own. A key of another node is an error in its place.
local answers, all, each, prefix = {}, #ARGV, tonumber(ARGV[1]), #'dsproxy:{abcd}:m:'
shared, last = 1, 1 + common
while last < all do
  side = ARGV[last + 1]
  entry = string.sub(side, prefix + 1)
  before, last = last + 1, last + each
  local done, answer = pcall(run)
  if not done and type(answer) ~= 'table' then answer = redis.error_reply(tostring(answer)) end
  answers[#answers + 1] = answer
end
return answers
