-- Interfaces: a stream of notices for each, in order, and what it has offered: o:NAME, number -> reply channel, SETTLED
-- once its response has begun, or nothing once it has ended and until the interface has read so. leases: who is alive,
-- until when.
local MAX_INBOX = 100000
local SETTLED = '-'

-- An interface that this Redis does not know yet gets what it is told after its hello: the stream of a Redis that has
-- lost its data would begin with ids that are not behind those which the interface has read.
local function tell(interface, ...)
  if call('XADD', P..'i:'..interface, 'NOMKSTREAM', '*', ...) then return end
  local key = P..'ie:'..interface
  if call('LLEN', key) < MAX_INBOX then
    call('RPUSH', key, cmsgpack.pack({...}))
    call('PEXPIRE', key, 60000)
  end
end
local function is_alive(interface) return call('ZSCORE', P..'leases', 'i:'..interface) end
local function is_dead(interface) return call('ZSCORE', P..'dead', interface) end
local function offer_of(id) return string.match(id, '^(.*):(%d+)$') end
local function is_settled(e)
  if bit.band(e.flags, OFFER) == 0 then return false end
  local interface, number = offer_of(e.id)
  return call('HGET', P..'o:'..interface, number) == SETTLED
end

-- The disconnect of a socket whose interface died while a frame of it was run.
local function owed(id, interface, number)
  call('HDEL', P..'od:'..interface, number)
  local raw = call('GET', P..'t:'..id)
  if raw then
    call('DEL', P..'t:'..id)
    put('websocket.disconnect', raw, 0)
  end
end

-- An offer has ended; whether its interface is there to hear of it.
local function end_offer(id)
  local interface, number = offer_of(id)
  local key = P..'o:'..interface
  if call('HSET', key, number, '') == 0 then return interface, number end
  call('HDEL', key, number)
  owed(id, interface, number)
end

local function fail(e, why)
  if bit.band(e.flags, OFFER) == 0 then return end
  local interface, number = end_offer(e.id)
  if interface then tell(interface, 'X', number, 'W', why) end
end

local function expired(queue, raw)
  count(queue, 'd', 1)
  fail(unpack_entry(raw), 'expired')
end

-- Drop what has expired at the head of a queue, at most limit of it.
local function expire(queue, limit)
  local key = P..'q:'..queue
  for _ = 1, limit do
    local raw = call('LINDEX', key, 0)
    if not raw or struct.unpack('>d', raw) > now then return end
    call('LPOP', key)
    expired(queue, raw)
  end
end

local function room(queue, capacity)
  local key = P..'q:'..queue
  local n = call('LLEN', key)
  if n < capacity then return capacity - n end
  expire(queue, n)
  return capacity - call('LLEN', key)
end

-- Messages that wait for a moment: a dead worker's, and deferred ones. Those whose moment has come go to their queues.
local function promote()
  for _, raw in ipairs(call('ZRANGEBYSCORE', P..'later', '-inf', now, 'LIMIT', 0, 100)) do
    call('ZREM', P..'later', raw)
    local e = unpack_entry(raw)
    if is_settled(e) then
      count(queue_of(e.channel), 'd', 1)
      fail(e, 'lost')
    else
      put(queue_of(e.channel), pack_entry(e), e.lifetime, e.deaths > 0)
    end
  end
end

-- Deliver one send: ARGV from i is interface, queue, capacity, id, channel, reply channel, flags, lifetime, tail.
-- False if it was refused because of its channel being full.
local function deliver(i)
  local interface, queue, lifetime = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 7])
  if interface ~= '' then
    if is_alive(interface) then
      if call('XLEN', P..'i:'..interface) >= MAX_INBOX then
        count(queue, 'f', 1)
        return false
      end
      tell(interface, 'R', ARGV[i + 4], 'B', ARGV[i + 8])
      return true
    elseif is_dead(interface) then
      count(queue, 'd', 1)
      return true
    end
  end
  local flags = tonumber(ARGV[i + 6])
  if room(queue, tonumber(ARGV[i + 2])) <= 0 then
    if bit.band(flags, AGAIN) == 0 then count(queue, 'f', 1) end
    return false
  end
  local raw = struct.pack(HEADER, lifetime > 0 and now + lifetime or FOREVER, now, lifetime, 0, bit.band(flags, 7), 0,
                          ARGV[i + 3], ARGV[i + 4], ARGV[i + 5])..ARGV[i + 8]
  put(queue, raw, lifetime)
  count(queue, 'm', 1)
  return true
end
