--# base queues inbox
-- Give a worker a message; it is in flight from here on. ARGV: client, then queues in the order of looking.
-- Returns the entry, -1 where the client's lease is gone (it has to say hello), else the ms until one may be due.
local client = ARGV[1]
if not call('ZSCORE', P..'leases', 'w:'..client) then return -1 end
for round = 1, 2 do
  for i = 2, #ARGV do
    local queue = ARGV[i]
    local key = P..'q:'..queue
    while true do
      local raw = call('LPOP', key)
      if not raw then break end
      local deadline, _, _, _, flags, _, id = struct.unpack('>dddBBBs', raw)
      if deadline > now then
        call('HSET', P..'w:'..client, id, raw)
        left(queue)
        if bit.band(flags, UNSAFE) ~= 0 and bit.band(flags, OFFER) ~= 0 then
          local interface, number = offer_of(id)
          if is_alive(interface) then tell(interface, 'U', number) end
        end
        return raw
      end
      expired(queue, raw)
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
