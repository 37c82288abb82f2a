--# base queues inbox groups
-- The members of a group. ARGV: group.
local found = {}
for _, interface in ipairs(call('SMEMBERS', P..'gi:'..ARGV[1])) do
  for _, channel in ipairs(call('SMEMBERS', P..'G:'..interface..':'..ARGV[1])) do found[#found + 1] = channel end
end
for _, member in ipairs(ordinary(ARGV[1])) do found[#found + 1] = member[1] end
return found
