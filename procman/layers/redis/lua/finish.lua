-- End a delivery and apply what its consumer sent, all or nothing. ARGV: client, seq, id, is_last, interface or '',
-- number, notice for the interface, reply channel, session ('' unchanged, else 's' and its bytes), then per send its
-- kind ('s': to a channel, 'g': to the group that stands at the place of the queue) and the nine fields of deliver.
-- Returns 1; 0: a channel is full and nothing was done; -1: the lease was lost; -2: Redis does not know the delivery;
-- or {channels or groups refused, how many} where is_last.
local redis_call, prefix = redis.call, KEYS[1]
local client, id, interface, number = ARGV[1], ARGV[3], ARGV[5], ARGV[6]
local state = 0  -- 1: it is numbered, 2: and was in flight
if #ARGV == 9 and ARGV[9] == '' and interface ~= '' then
  if redis_call('INCR', prefix..'n:'..client) ~= tonumber(ARGV[2]) then
    redis_call('DECR', prefix..'n:'..client)
  elseif redis_call('HDEL', prefix..'w:'..client, id) == 0 then
    state = 1
  elseif redis_call('HSET', prefix..'o:'..interface, number, '') == 0 then
    redis_call('XADD', prefix..'i:'..interface, '*', 'F', ARGV[7])
    return 1
  else
    redis_call('HDEL', prefix..'o:'..interface, number)
    state = 2
  end
end
--# base queues inbox groups
if state == 0 and not is_first(client, ARGV[2]) then return 1 end
if #ARGV > 9 and ARGV[4] == '0' then
  local needed = {}
  for i = 10, #ARGV, 10 do
    local owner, queue, capacity = ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
    if ARGV[i] == 's' and (owner == '' or not (is_alive(owner) or is_dead(owner))) then
      -- More sends to one channel than its capacity never fit at once: they are applied when it is empty.
      needed[queue] = math.min((needed[queue] or 0) + 1, capacity)
      if room(queue, capacity) < needed[queue] then return 0 end
    end
  end
end
if state < 2 and call('HDEL', P..'w:'..client, id) == 0 then
  if call('SISMEMBER', P..'lost:'..client, id) == 1 then return -1 end
  return -2
end
local has_interface = false
if interface ~= '' then
  if call('HSET', P..'o:'..interface, number, '') == 0 then
    tell(interface, 'F', ARGV[7])
    has_interface = true
  else
    call('HDEL', P..'o:'..interface, number)
  end
  if ARGV[9] ~= '' and call('HEXISTS', P..'so:'..interface, ARGV[8]) == 1 then
    call('HSET', P..'ss:'..interface, ARGV[8], string.sub(ARGV[9], 2))
  end
end
local refused = {}
for i = 10, #ARGV, 10 do
  if ARGV[i] == 's' then
    if not deliver(i + 1) then
      count(ARGV[i + 2], 'd', 1)
      refused[#refused + 1] = ARGV[i + 5]
      refused[#refused + 1] = 1
    end
  else
    local n, last = group_send(ARGV[i + 2], ARGV[i + 9], interface, ARGV[i + 4], tonumber(ARGV[i + 8]))
    if n > 0 then
      refused[#refused + 1] = last
      refused[#refused + 1] = -n
    end
  end
end
if interface ~= '' and not has_interface then owed(id, interface, number) end
return #refused > 0 and refused or 1
