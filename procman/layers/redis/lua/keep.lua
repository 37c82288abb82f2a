--# base queues inbox groups lost
-- What every worker and interface does now and then: renew its lease, see to the dead, to moments that have come and to
-- messages that have expired. ARGV: 'w' or 'i', client, lease ms, slot. Returns {is its lease there, ms until something
-- is due, what was found lost}.
local kind, client = ARGV[1], ARGV[2]
local told = {}
-- While Redis did not answer, nobody renewed: that time does not count.
local last = tonumber(call('HGET', P..'clock', 'last') or now)
if now - last > 2000 then call('HINCRBY', P..'clock', 'lost', now - last - 1000) end
call('HSET', P..'clock', 'last', now)
keep(P..'clock', 7 * DAY)
local vnow = virtual_now()
local is_there = call('ZADD', P..'leases', 'XX', 'CH', vnow + tonumber(ARGV[3]), kind..':'..client) == 1
  or call('ZSCORE', P..'leases', kind..':'..client)
keep(P..'leases', DAY)
for _, member in ipairs(call('ZRANGEBYSCORE', P..'leases', '-inf', vnow, 'LIMIT', 0, 5)) do
  local other = string.sub(member, 3)
  if string.sub(member, 1, 1) == 'w' then give_up_worker(other, told)
  else
    give_up_interface(other, 1006, 500)
    told[#told + 1] = {'', '', other, 'interface'}
  end
end
for _, other in ipairs(call('ZRANGE', P..'dying', 0, 1)) do
  give_up_interface(other, tonumber(call('ZSCORE', P..'dying', other)), 500)
end
promote()
for _, queue in ipairs(call('SRANDMEMBER', P..'queues', 10)) do
  expire(queue, 100)
  if call('EXISTS', P..'q:'..queue) == 0 then call('SREM', P..'queues', queue) end
end
local own = kind == 'w' and {'n:', 'w:'} or {'n:', 'i:', 'o:', 'so:', 'sn:', 'ss:', 'ig:', 'parts:'}
for _, key in ipairs(own) do keep(P..key..client, DAY) end
keep(P..'epoch', 7 * DAY)
keep(P..'reported', DAY)
keep(P..'labels', DAY)
if ARGV[4] ~= '' then keep(P..'slot:'..ARGV[4], DAY) end
local due = call('ZRANGE', P..'later', 0, 0, 'WITHSCORES')[2]
return {is_there and 1 or 0, due and math.max(1, due - now) or 5000, told}
