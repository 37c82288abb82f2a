--# base queues inbox groups
-- A send of a finish whose delivery is on another server: applied once, also when its consumer runs again.
-- ARGV: client, seq, key of the send, kind and fields as for finish. Returns 1; 0: the channel is full; or {last channel
-- that refused, how many} of a group.
if not is_first(ARGV[1], ARGV[2]) or call('EXISTS', P..'once:'..ARGV[3]) == 1 then return 1 end
local answer = 1
if ARGV[4] == 's' then
  if not deliver(5) then return 0 end
else
  local n, last = group_send(ARGV[6], ARGV[13], '', ARGV[8], tonumber(ARGV[12]))
  if n > 0 then answer = {last, n} end
end
call('SET', P..'once:'..ARGV[3], 1, 'PX', math.max(60000, tonumber(ARGV[12])))
return answer
