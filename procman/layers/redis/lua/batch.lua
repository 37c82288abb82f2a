--# base queues inbox groups lost
-- What an interface says, in order. ARGV: name, client, seq, then operations with their arguments.
-- Returns 1, or -1 where its lease is gone: nothing was done, it has to say hello.
local interface = ARGV[1]
if not is_first(ARGV[2], ARGV[3]) then return 1 end
if not is_alive(interface) then return -1 end
local o, so, sn, ss = P..'o:'..interface, P..'so:'..interface, P..'sn:'..interface, P..'ss:'..interface
local was_open = true
local handlers = {}

-- Offers of this command, put into their queues together: queue -> entries; and number, reply channel of each.
local waiting, order, numbers = {}, {}, {}

local function put_offers()
  if #numbers > 0 then call('HSET', o, unpack(numbers)) end
  for _, queue in ipairs(order) do
    local raws = waiting[queue]
    local length = call('RPUSH', P..'q:'..queue, unpack(raws))
    if length == #raws then
      call('SADD', P..'queues', queue)
      call('PEXPIRE', P..'queues', 14 * DAY)
      if call('LLEN', P..'b:'..queue) == 0 then ring(queue) end
    end
    keep(P..'q:'..queue, 7 * DAY)
    count(queue, 'm', #raws)
  end
  waiting, order, numbers = {}, {}, {}
end

local function settle(number, known)
  if known and known ~= '' then call('HSET', o, number, SETTLED) end
end

-- Offer: number, queue, capacity (0: any number may wait), channel, reply channel, flags, lifetime, tail.
handlers.O = {8, function(i)
  local number, queue, reply, flags = ARGV[i], ARGV[i + 1], ARGV[i + 4], tonumber(ARGV[i + 5])
  local capacity, lifetime = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 6])
  if flags >= BEGUN then
    if bit.band(flags, CLOSED) ~= 0 and not was_open then
      tell(interface, 'Q', number)
      return
    end
    local known = call('HGET', o, number)
    if known then
      if bit.band(flags, BEGUN) ~= 0 and bit.band(flags, UNSAFE) ~= 0 then settle(number, known) end
      return
    end
    if bit.band(flags, BEGUN) ~= 0 then
      call('HSET', o, number, '')
      tell(interface, 'X', number, 'W', 'lost')
      return
    end
  end
  if bit.band(flags, SOCKET) ~= 0 then call('HINCRBY', sn, reply, 1) end
  local raws = waiting[queue]
  if capacity > 0 and room(queue, capacity) <= (raws and #raws or 0) then
    count(queue, 'f', 1)
    call('HSET', o, number, '')
    tell(interface, 'X', number, 'W', 'full')
    return
  end
  if not raws then
    raws = {}
    waiting[queue] = raws
    order[#order + 1] = queue
  end
  raws[#raws + 1] = struct.pack(HEADER, lifetime > 0 and now + lifetime or FOREVER, now, lifetime, 0,
                                bit.band(flags, 7), 0, interface..':'..number, ARGV[i + 3], reply)..ARGV[i + 7]
  numbers[#numbers + 1] = number
  numbers[#numbers + 1] = reply
end}

-- Withdraw: number, queue.
handlers.W = {2, function(i)
  put_offers()
  local id, key = interface..':'..ARGV[i], P..'q:'..ARGV[i + 1]
  for _, raw in ipairs(call('LRANGE', key, 0, 9999)) do
    local _, _, _, _, _, _, found = struct.unpack('>dddBBBs', raw)
    if found == id then
      call('LREM', key, 1, raw)
      call('HSET', o, ARGV[i], '')
      tell(interface, 'X', ARGV[i], 'W', 'withdrawn')
      return
    end
  end
end}

-- The response to an offer has begun, and no further worker may get it: number.
handlers.Z = {1, function(i) settle(ARGV[i], call('HGET', o, ARGV[i])) end}

-- A socket was accepted: reply channel, path, order, session ('' none, else 's' and its bytes).
handlers.S = {4, function(i)
  call('HSET', so, ARGV[i], ARGV[i + 1])
  call('HSET', sn, ARGV[i], ARGV[i + 2])
  if ARGV[i + 3] ~= '' then call('HSET', ss, ARGV[i], string.sub(ARGV[i + 3], 2)) end
  keep(so, DAY) keep(sn, DAY) keep(ss, DAY)
end}

-- A socket has ended: reply channel. An offer of its disconnect may follow.
handlers.C = {1, function(i)
  was_open = call('HDEL', so, ARGV[i]) == 1
  for _, group in ipairs(call('SMEMBERS', P..'sg:'..ARGV[i])) do remove_held(group, interface, ARGV[i]) end
  call('HDEL', sn, ARGV[i])
  call('HDEL', ss, ARGV[i])
end}

-- A channel is no member any more: group, channel. It is one: the same.
handlers.D = {2, function(i) remove_held(ARGV[i], interface, ARGV[i + 1]) end}
handlers.M = {2, function(i) add_held(ARGV[i], interface, ARGV[i + 1]) end}

-- The memberships of a group last on: group.
handlers.K = {1, function(i)
  keep(P..'G:'..interface..':'..ARGV[i], DAY)
  keep(P..'gi:'..ARGV[i], DAY)
  keep(P..'groups', DAY)
end}

-- A part was written, or its client is gone: key, '1' or '0'.
handlers.A = {2, function(i)
  if call('SREM', P..'parts:'..interface, ARGV[i]) == 0 then return end
  call('RPUSH', P..'a:'..ARGV[i], ARGV[i + 1])
  call('PEXPIRE', P..'a:'..ARGV[i], 60000)
end}

-- Notices were read up to this id, and with them the ends of n offers: id, n, their numbers.
handlers.T = {2, function(i)
  local n = tonumber(ARGV[i + 1])
  call('XTRIM', P..'i:'..interface, 'MINID', '~', ARGV[i])
  if n > 0 then call('HDEL', o, unpack(ARGV, i + 2, i + 1 + n)) end
  return n
end}

-- All that it holds was reported: group sends that came too early follow, and members that were added meanwhile.
handlers.R = {0, function()
  call('HSET', P..'reported', interface, 1)
  local early = call('LRANGE', P..'early', 0, -1)
  for n = 1, #early, 2 do
    if call('EXISTS', P..'G:'..interface..':'..early[n]) == 1 then tell(interface, 'G', early[n], 'B', early[n + 1]) end
  end
  local prefix = interface..'!'
  for _, group in ipairs(call('SMEMBERS', P..'groups')) do
    if call('EXISTS', P..'g:'..group) == 1 then
      for _, member in ipairs(ordinary(group)) do
        if string.sub(member[1], 1, #prefix) == prefix then
          call('HDEL', P..'g:'..group, member[1])
          add_held(group, interface, member[1])
          tell(interface, 'A', group, 'C', member[1])
        end
      end
    end
  end
end}

-- It ends in order: what it has queued stays valid.
handlers.B = {0, function()
  put_offers()
  for _ = 1, 100 do if give_up_interface(interface, 1012, 500) then return end end
end}

local i = 4
while i <= #ARGV do
  local handler = handlers[ARGV[i]]
  i = i + 1 + handler[1] + (handler[2](i + 1) or 0)
end
put_offers()
keep(o, DAY)
return 1
