--# base
-- A worker is about to end on purpose: what it has in flight then was not tried. ARGV: client.
call('SET', P..'x:'..ARGV[1], 1, 'PX', 3600000)
return 1
