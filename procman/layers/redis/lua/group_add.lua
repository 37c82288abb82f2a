--# base queues inbox groups
-- Add a member: told to the interface that holds it, before anything that is sent later.
-- ARGV: client, seq, group, channel, interface or '', lifetime ms, capacity.
local group, channel, interface = ARGV[3], ARGV[4], ARGV[5]
if not is_first(ARGV[1], ARGV[2]) then return 1 end
if interface ~= '' and is_alive(interface) then
  add_held(group, interface, channel)
  tell(interface, 'A', group, 'C', channel)
elseif interface == '' or not is_dead(interface) then
  local key, lifetime = P..'g:'..group, tonumber(ARGV[6])
  call('HSET', key, channel, string.format('%.0f %s', now + lifetime, ARGV[7]))
  keep(key, lifetime)
  call('SADD', P..'groups', group)
  keep(P..'groups', math.max(DAY, lifetime))
end
return 1
