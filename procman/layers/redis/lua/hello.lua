--# base queues inbox groups lost
-- A worker process is there (again). ARGV: client, slot, label, lease ms, then seq, id, entry of each delivery that it
-- runs (seq 0) or has sent the finish of without an answer. Returns {last seq that was applied, ids that others have
-- now, what was found lost}. What it was given and never heard of goes back to where it was; what this Redis has lost
-- is in flight again.
local client, slot = ARGV[1], ARGV[2]
local told, foreign, listed = {}, {}, {}
is_early()
call('ZADD', P..'leases', virtual_now() + tonumber(ARGV[4]), 'w:'..client)
keep(P..'leases', DAY)
call('HSET', P..'labels', client, ARGV[3])
keep(P..'labels', DAY)
if slot ~= '' then
  local old = call('GETSET', P..'slot:'..slot, client)
  call('PEXPIRE', P..'slot:'..slot, DAY)
  if old and old ~= client then give_up_worker(old, told) end
end
local key = P..'w:'..client
local done = tonumber(call('GET', P..'n:'..client) or 0)
for i = 5, #ARGV, 3 do
  local seq, id, raw = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2]
  listed[id] = true
  if seq > 0 and seq <= done or call('HEXISTS', key, id) == 1 then
    -- known
  elseif call('SISMEMBER', P..'lost:'..client, id) == 1 then
    foreign[#foreign + 1] = id
  else
    local e = unpack_entry(raw)
    call('HSET', key, id, raw)
    call('LREM', P..'q:'..queue_of(e.channel), 1, raw)
    if bit.band(e.flags, OFFER) ~= 0 then
      local interface, number = offer_of(id)
      if not is_dead(interface) then
        call('HSETNX', P..'o:'..interface, number, e.reply)
        keep(P..'o:'..interface, DAY)
      end
    end
  end
end
local all = call('HGETALL', key)
for i = 1, #all, 2 do
  if not listed[all[i]] then
    local e = unpack_entry(all[i + 1])
    call('HDEL', key, all[i])
    put(queue_of(e.channel), all[i + 1], e.lifetime, true)
  end
end
keep(key, DAY)
return {done, foreign, told}
