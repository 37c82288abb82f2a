-- Give a worker a message; it is in flight from here on. ARGV: client, 'r' if a bell has rung for it (else ''), then
-- queues in the order of looking. Returns the entry, -1 where the client's lease is gone (it has to say hello), else the
-- ms until one may be due.
local redis_call, prefix = redis.call, KEYS[1]
if not redis_call('ZSCORE', prefix..'leases', 'w:'..ARGV[1]) then return -1 end
local popped = redis_call('LPOP', prefix..'q:'..ARGV[3])
if popped then
  local deadline, _, _, _, flags, _, id = struct.unpack('>dddBBBs', popped)
  if ARGV[2] == '' and deadline == 1e15 and flags % 2 == 0 then
    redis_call('HSET', prefix..'w:'..ARGV[1], id, popped)
    return popped
  end
end
--# base queues inbox
local client = ARGV[1]

local function give(queue, raw)
  local deadline, _, _, _, flags, _, id = struct.unpack('>dddBBBs', raw)
  if deadline <= now then
    expired(queue, raw)
    return
  end
  call('HSET', P..'w:'..client, id, raw)
  -- Who was woken by the bell rings it for the next one.
  if ARGV[2] ~= '' then left(queue) end
  if bit.band(flags, UNSAFE) ~= 0 and bit.band(flags, OFFER) ~= 0 then
    local interface, number = offer_of(id)
    if is_alive(interface) then tell(interface, 'U', number) end
  end
  return raw
end

if popped and give(ARGV[3], popped) then return popped end
for round = 1, 2 do
  for i = 3, #ARGV do
    local key = P..'q:'..ARGV[i]
    while true do
      local raw = call('LPOP', key)
      if not raw then break end
      if give(ARGV[i], raw) then return raw end
    end
  end
  if round == 1 then
    local due = call('ZRANGE', P..'later', 0, 0, 'WITHSCORES')[2]
    if not due then return 5000 end
    if tonumber(due) > now then return due - now end
    promote()
  end
end
return 5000
