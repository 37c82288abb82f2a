--# base queues inbox
-- Counters. ARGV: a queue, or nothing for all. Returns per counter {total, in the last full second}, then
-- {waiting, age of the oldest ms, in flight, interfaces, workers, sockets, groups}; for all, at the end, a list of
-- queue, messages, queue, messages ... of the first 1000 queues with any.
local letters = {'m', 'f', 'd', 'r'}
local names = ARGV[1] and {ARGV[1]} or call('SMEMBERS', P..'counted')
local totals, rates = {}, {}
for _, letter in ipairs(letters) do totals[letter], rates[letter] = 0, 0 end
for _, name in ipairs(names) do
  local all = call('HGETALL', P..'c:'..name)
  for i = 1, #all, 2 do
    local letter, second = string.match(all[i], '^(%a)(%d*)$')
    if totals[letter] then
      totals[letter] = totals[letter] + all[i + 1]
      if second ~= '' and tonumber(second) == t[1] - 1 then rates[letter] = rates[letter] + all[i + 1] end
    end
  end
end
local waiting, age = 0, 0
local depths = {}
for _, queue in ipairs(ARGV[1] and {ARGV[1]} or call('SMEMBERS', P..'queues')) do
  expire(queue, 1000)
  local raw = call('LINDEX', P..'q:'..queue, 0)
  if raw then
    local depth = call('LLEN', P..'q:'..queue)
    waiting = waiting + depth
    if #depths < 2000 then
      depths[#depths + 1] = queue
      depths[#depths + 1] = depth
    end
    local _, since = struct.unpack('>dd', raw)
    age = math.max(age, now - since)
  end
end
local flight, interfaces, workers, sockets = 0, 0, 0, 0
for _, member in ipairs(call('ZRANGE', P..'leases', 0, -1)) do
  local client = string.sub(member, 3)
  if string.sub(member, 1, 1) == 'w' then
    workers = workers + 1
    flight = flight + call('HLEN', P..'w:'..client)
  else
    interfaces = interfaces + 1
    sockets = sockets + call('HLEN', P..'so:'..client)
  end
end
local found = {}
for _, letter in ipairs(letters) do
  found[#found + 1] = totals[letter]
  found[#found + 1] = rates[letter]
end
for _, n in ipairs({waiting, age, flight, interfaces, workers, sockets, call('SCARD', P..'groups')}) do
  found[#found + 1] = n
end
if not ARGV[1] then found[#found + 1] = depths end
return found
