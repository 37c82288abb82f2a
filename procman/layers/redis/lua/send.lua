--# base queues inbox
-- Queue messages or pass them to interfaces. ARGV: client, seq, then sends as for deliver. Returns refused positions.
local refused = {}
if not is_first(ARGV[1], ARGV[2]) then return refused end
for i = 3, #ARGV, 9 do
  if not deliver(i) then refused[#refused + 1] = (i - 3) / 9 end
end
return refused
