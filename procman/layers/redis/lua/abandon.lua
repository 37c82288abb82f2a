--# base queues inbox groups lost
-- Threads of a worker ended with a delivery in their hands: as if the worker had died with it. ARGV: client, seq, ids.
-- Returns what was found lost.
local told = {}
if not is_first(ARGV[1], ARGV[2]) then return told end
for i = 3, #ARGV do
  local raw = call('HGET', P..'w:'..ARGV[1], ARGV[i])
  if raw then
    call('HDEL', P..'w:'..ARGV[1], ARGV[i])
    give_up_entry(ARGV[1], raw, told)
  end
end
return told
