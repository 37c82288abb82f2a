-- Queues of messages. An entry is a header that the scripts read, and a tail (session, body) that they do not.
-- Header: deadline ms, since ms, lifetime ms (0: for ever), deaths, flags, deferrals, id, channel, reply channel.
local HEADER = '>dddBBBsss'
local FOREVER = 1e15
local TRIED = 128  -- added to the deaths of a message that has been run and not counted
local UNSAFE, OFFER, BOUNDED, SOCKET, BEGUN, AGAIN, CLOSED = 1, 2, 4, 8, 16, 32, 64

local function queue_of(channel) return string.match(channel, '^[^!]*!') or channel end

local function unpack_entry(raw)
  local e, after = {}
  e.deadline, e.since, e.lifetime, e.deaths, e.flags, e.deferrals, e.id, e.channel, e.reply, after =
    struct.unpack(HEADER, raw)
  e.tail = string.sub(raw, after)
  return e
end

-- The entry as bytes, waiting from now on.
local function pack_entry(e)
  local deadline = e.lifetime > 0 and now + e.lifetime or FOREVER
  return struct.pack(HEADER, deadline, now, e.lifetime, e.deaths, e.flags, e.deferrals, e.id, e.channel, e.reply)..e.tail
end

-- Counters of a queue: one field per counter and second, added up once they are old. Names with a mark come without
-- end: in the totals they share one key, and their own ends soon.
local function count(queue, counter, n)
  local name = queue
  if string.find(queue, '[?!]') then
    name = '?'
    call('HINCRBY', P..'c:'..queue, counter..t[1], n)
    call('PEXPIRE', P..'c:'..queue, 60000)
  end
  local key = P..'c:'..name
  if call('HINCRBY', key, counter..t[1], n) ~= n then return end
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    local letter, second = string.match(all[i], '^(%a)(%d+)$')
    if second and tonumber(second) < t[1] - 15 then
      call('HINCRBY', key, letter, all[i + 1])
      call('HDEL', key, all[i])
    end
  end
  call('PEXPIRE', key, DAY)
  call('SADD', P..'counted', name)
  call('PEXPIRE', P..'counted', DAY)
end

local function ring(queue)
  call('RPUSH', P..'b:'..queue, '1')
  call('PEXPIRE', P..'b:'..queue, 3600000)
end

-- Entries for sockets never expire: their interface holds them. Their keys last for a week.
local function put(queue, raw, lifetime, is_front)
  local key = P..'q:'..queue
  local length = call(is_front and 'LPUSH' or 'RPUSH', key, raw)
  if length == 1 then
    call('SADD', P..'queues', queue)
    call('PEXPIRE', P..'queues', 14 * DAY)
  end
  if (length == 1 or is_front) and call('LLEN', P..'b:'..queue) == 0 then ring(queue) end
  keep(key, lifetime > 0 and lifetime + 1000 or 7 * DAY)
end

-- A message was taken from a queue: the bell goes on ringing while there are more.
local function left(queue)
  if call('LLEN', P..'q:'..queue) == 0 then
    call('DEL', P..'b:'..queue)
    call('SREM', P..'queues', queue)
  elseif call('LLEN', P..'b:'..queue) == 0 then
    ring(queue)
  end
end
