--# base queues inbox groups lost
-- An interface is there (again). ARGV: name, lease ms, id of the last notice that it has read, slot of its supervisor
-- or '': its predecessor there is given up. Returns 0: it was alive all the time, 1: it is not known (this Redis is another one, or has lost its data), 2: it had been declared dead.
local interface, cursor = ARGV[1], ARGV[3]
local state = 0
is_early()
if is_dead(interface) then
  -- What is left of its former life is told to nobody.
  for _ = 1, 100 do if give_up_interface(interface, 1006, 500) then break end end
  call('ZREM', P..'dead', interface)
  state = 2
elseif not is_alive(interface) then
  state = 1
end
if ARGV[4] ~= '' then
  local old = call('GETSET', P..'slot:'..ARGV[4], interface)
  call('PEXPIRE', P..'slot:'..ARGV[4], DAY)
  if old and old ~= interface and is_alive(old) then give_up_interface(old, 1006, 500) end
end
if state ~= 0 then call('HDEL', P..'reported', interface) end
call('ZADD', P..'leases', virtual_now() + tonumber(ARGV[2]), 'i:'..interface)
keep(P..'leases', DAY)
-- Notices come after the ones that were read, also at a server whose clock is behind the one of its predecessor.
redis.pcall('XADD', P..'i:'..interface, cursor, 'N', '')
keep(P..'i:'..interface, DAY)
-- What it was told and sent while it was not known.
for _, notice in ipairs(call('LRANGE', P..'ie:'..interface, 0, -1)) do
  tell(interface, unpack(cmsgpack.unpack(notice)))
end
call('DEL', P..'ie:'..interface)
local prefix = interface..'!'
for _, raw in ipairs(call('LRANGE', P..'q:'..prefix, 0, -1)) do
  local e = unpack_entry(raw)
  tell(interface, 'R', e.channel, 'B', e.tail)
end
call('DEL', P..'q:'..prefix, P..'b:'..prefix)
return state
