--# base queues inbox groups
-- Drop what waits and all memberships; what is in flight is not redelivered. ARGV: client, seq.
if not is_first(ARGV[1], ARGV[2]) then return 1 end
call('SET', P..'flushed', now, 'PX', 7 * DAY)
for _, queue in ipairs(call('SMEMBERS', P..'queues')) do
  local key = P..'q:'..queue
  for _, raw in ipairs(call('LRANGE', key, 0, -1)) do fail(unpack_entry(raw), 'lost') end
  call('DEL', key, P..'b:'..queue)
end
for _, raw in ipairs(call('ZRANGE', P..'later', 0, -1)) do fail(unpack_entry(raw), 'lost') end
for _, group in ipairs(call('SMEMBERS', P..'groups')) do
  for _, interface in ipairs(call('SMEMBERS', P..'gi:'..group)) do
    call('DEL', P..'G:'..interface..':'..group, P..'ig:'..interface)
  end
  call('DEL', P..'gi:'..group, P..'g:'..group)
end
for _, member in ipairs(call('ZRANGE', P..'leases', 0, -1)) do
  if string.sub(member, 1, 1) == 'i' then tell(string.sub(member, 3), 'Z', '') end
end
call('DEL', P..'queues', P..'later', P..'groups', P..'early')
return 1
