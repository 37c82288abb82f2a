--# base queues inbox
-- Take a message and end it. ARGV: client, seq, body channel's interface or '', then queues in the order of looking.
-- Returns {channel, tail, id}, -2 where that interface is dead and will send no more, else the ms until one may be due.
local client = ARGV[1]
if not is_first(client, ARGV[2]) then
  local raw = call('GET', P..'r:'..client)
  if raw then
    local e = unpack_entry(raw)
    return {e.channel, e.tail, e.id}
  end
end
call('DEL', P..'r:'..client)
promote()
for i = 4, #ARGV do
  local queue = ARGV[i]
  local key = P..'q:'..queue
  while true do
    local raw = call('LPOP', key)
    if not raw then break end
    local e = unpack_entry(raw)
    if e.deadline > now then
      left(queue)
      -- Answered once more if the connection breaks before the client has read it.
      call('SET', P..'r:'..client, raw, 'PX', 60000)
      if bit.band(e.flags, OFFER) ~= 0 then
        local interface, number = end_offer(e.id)
        if interface then tell(interface, 'Q', number) end
      end
      return {e.channel, e.tail, e.id}
    end
    expired(queue, raw)
  end
end
if ARGV[3] ~= '' and is_dead(ARGV[3]) then return -2 end
local due = call('ZRANGE', P..'later', 0, 0, 'WITHSCORES')[2]
return due and math.max(1, due - now) or 5000
