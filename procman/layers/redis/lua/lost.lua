-- What becomes of the dead (with groups before it). Leases count time in which Redis answered: clock holds how much of it does not count.
local function virtual_now() return now - tonumber(call('HGET', P..'clock', 'lost') or 0) end

-- A message in flight has lost its worker: it runs once more, or is dropped.
-- Adds {channel, reply channel, worker, what became of it} to told.
local function give_up_entry(client, raw, told)
  local e = unpack_entry(raw)
  local queue = queue_of(e.channel)
  local fate = 'redelivered'
  -- A worker that ended on purpose, and not for this message: an attempt that is known and not counted.
  local is_excused = call('EXISTS', P..'x:'..client) == 1
  if e.since <= tonumber(call('GET', P..'flushed') or 0) then fate = 'flushed'
  elseif bit.band(e.flags, UNSAFE) ~= 0 or is_settled(e) then fate = 'unsafe'
  elseif e.deaths % TRIED > 0 and not is_excused then fate = 'dropped' end
  call('SADD', P..'lost:'..client, e.id)
  call('PEXPIRE', P..'lost:'..client, 3600000)
  if fate == 'redelivered' then
    e.deaths = is_excused and e.deaths % TRIED + TRIED or 1
    call('ZADD', P..'later', now + 100, pack_entry(e))
    keep(P..'later', 7 * DAY)
    count(queue, 'r', 1)
  else
    count(queue, 'd', 1)
    fail(e, 'lost')
  end
  told[#told + 1] = {e.channel, e.reply, call('HGET', P..'labels', client) or client, fate}
end

-- A worker ended, or was silent for too long.
local function give_up_worker(client, told)
  local key = P..'w:'..client
  local all = call('HGETALL', key)
  for i = 2, #all, 2 do give_up_entry(client, all[i], told) end
  call('DEL', key)
  call('ZREM', P..'leases', 'w:'..client)
  call('HDEL', P..'labels', client)
end

local function disconnect_entry(reply, path, order, session, code)
  local body = cmsgpack.pack({reply_channel = reply, code = code, path = path, order = order})
  local tail = session and struct.pack('>I4', #session)..session..body or struct.pack('>I4', 4294967295)..body
  return struct.pack(HEADER, FOREVER, now, 0, 0, 0, 0, 'gone:'..reply, 'websocket.disconnect', reply)..tail
end

-- Requests and connects of a dead interface that nobody has begun will not be answered: nobody waits for them.
local function drop_waiting(interface)
  for _, queue in ipairs(call('SMEMBERS', P..'queues')) do
    if not string.find(queue, '[?!]') then
      for _, raw in ipairs(call('LRANGE', P..'q:'..queue, 0, 9999)) do
        local e = unpack_entry(raw)
        if bit.band(e.flags, OFFER) ~= 0 and offer_of(e.id) == interface
           and (bit.band(e.flags, BOUNDED) ~= 0 or queue == 'websocket.connect') then
          call('LREM', P..'q:'..queue, 1, raw)
          count(queue, 'd', 1)
        end
      end
    end
  end
end

-- An interface ended: run the disconnects of its sockets, each once. At most limit of them; true when all are queued.
local function give_up_interface(interface, code, limit)
  local waiting = P..'od:'..interface
  if call('ZREM', P..'leases', 'i:'..interface) == 1 then
    call('ZADD', P..'dead', now, interface)
    call('ZREMRANGEBYRANK', P..'dead', 0, -1025)
    call('PEXPIRE', P..'dead', DAY)
    call('ZADD', P..'dying', code, interface)
    call('PEXPIRE', P..'dying', DAY)
    call('HDEL', P..'reported', interface)
    if code == 1006 then drop_waiting(interface) end
    if call('EXISTS', P..'o:'..interface) == 1 then call('RENAME', P..'o:'..interface, waiting) end
    local parts = call('SMEMBERS', P..'parts:'..interface)
    for _, part in ipairs(parts) do
      call('RPUSH', P..'a:'..part, '0')
      call('PEXPIRE', P..'a:'..part, 60000)
    end
    for _, group in ipairs(call('SMEMBERS', P..'ig:'..interface)) do drop_held(group, interface) end
    call('DEL', P..'i:'..interface, P..'parts:'..interface)
  end
  local busy, offers = {}, call('HGETALL', waiting)
  for i = 1, #offers, 2 do
    if offers[i + 1] ~= '' then busy[offers[i + 1]] = interface..':'..offers[i] end
  end
  local records = call('HSCAN', P..'so:'..interface, 0, 'COUNT', limit)[2]
  for i = 1, #records, 2 do
    local reply = records[i]
    local order = tonumber(call('HGET', P..'sn:'..interface, reply) or 0)
    local raw = disconnect_entry(reply, records[i + 1], order, call('HGET', P..'ss:'..interface, reply), code)
    call('HDEL', P..'so:'..interface, reply)
    if busy[reply] then call('SET', P..'t:'..busy[reply], raw, 'PX', DAY)
    else put('websocket.disconnect', raw, 0) end
  end
  if call('EXISTS', P..'so:'..interface) == 1 then return false end
  call('ZREM', P..'dying', interface)
  call('DEL', P..'sn:'..interface, P..'ss:'..interface)
  return true
end
