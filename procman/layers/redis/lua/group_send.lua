--# base queues inbox groups
-- Send to all members of a group. ARGV: client, seq, group, id, lifetime ms, tail. Returns {number refused, last of them}.
if not is_first(ARGV[1], ARGV[2]) then return {0, ''} end
local refused, last = group_send(ARGV[3], ARGV[6], '', ARGV[4], tonumber(ARGV[5]))
return {refused, last}
