--# base queues inbox
-- Give a delivery back to run later as another message. ARGV: client, seq, id, pause ms, tail. Returns as finish.
local client, id = ARGV[1], ARGV[3]
if not is_first(client, ARGV[2]) then return 1 end
local raw = call('HGET', P..'w:'..client, id)
if not raw then return call('SISMEMBER', P..'lost:'..client, id) == 1 and -1 or -2 end
call('HDEL', P..'w:'..client, id)
local e = unpack_entry(raw)
if e.since <= tonumber(call('GET', P..'flushed') or 0) then fail(e, 'lost') return 1 end
e.tail, e.deferrals = ARGV[5], math.min(e.deferrals + 1, 200)
call('ZADD', P..'later', now + tonumber(ARGV[4]), pack_entry(e))
keep(P..'later', 7 * DAY)
return 1
