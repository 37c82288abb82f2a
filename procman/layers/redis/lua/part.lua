--# base queues inbox
-- A part of a response, whose sender waits on a:KEY until it is written. ARGV: client, seq, interface, channel, key, body.
-- Returns 1, 0 where no interface has that name, -1 where the interface is dead, -2 where its inbox is full.
local interface, key = ARGV[3], ARGV[5]
if not is_first(ARGV[1], ARGV[2]) then return 1 end
if is_dead(interface) then return -1 end
if not is_alive(interface) then return 0 end
if call('XLEN', P..'i:'..interface) >= MAX_INBOX then return -2 end
tell(interface, 'P', ARGV[4], key, ARGV[6])
call('SADD', P..'parts:'..interface, key)
keep(P..'parts:'..interface, DAY)
return 1
