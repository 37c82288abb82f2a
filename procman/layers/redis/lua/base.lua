-- What every script begins with: the prefix, the server's time in ms (hosts need no common clock), repeated commands.
local P, call = KEYS[1], redis.call
local t = call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local DAY = 86400000

-- A key lives for ms at least.
local function keep(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, 2 * ms) end
end

-- Whether the command seq of a client is here for the first time. A client numbers its commands and sends them in order,
-- again those whose answers a broken connection kept from it.
local function is_first(client, seq)
  local key = P..'n:'..client
  local found = call('INCR', key)
  seq = tonumber(seq)
  if found == seq then
    if seq % 16 == 1 then call('PEXPIRE', key, 600000) end
    return true
  end
  if found > seq then call('DECR', key) return false end
  call('SET', key, seq, 'PX', 600000)
  return true
end
