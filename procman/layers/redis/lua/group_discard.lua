--# base queues inbox groups
-- Remove a member. ARGV: client, seq, group, channel, interface or ''.
local group, channel, interface = ARGV[3], ARGV[4], ARGV[5]
if not is_first(ARGV[1], ARGV[2]) then return 1 end
if interface ~= '' and is_alive(interface) then
  if remove_held(group, interface, channel) then tell(interface, 'D', group, 'C', channel) end
else
  call('HDEL', P..'g:'..group, channel)
  forget_if_empty(group)
end
return 1
