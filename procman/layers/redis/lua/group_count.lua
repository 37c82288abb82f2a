--# base queues inbox groups
-- How many members a group has. ARGV: group.
local count = #ordinary(ARGV[1])
for _, interface in ipairs(call('SMEMBERS', P..'gi:'..ARGV[1])) do
  count = count + call('SCARD', P..'G:'..interface..':'..ARGV[1])
end
return count
