-- Groups. gi:GROUP: the interfaces with members; G:INTERFACE:GROUP: their channels; ig:INTERFACE: its groups.
-- sg:CHANNEL: the groups of such a channel. g:GROUP: other members, channel -> "deadline capacity". groups: all groups.

local function add_held(group, interface, channel)
  local key = P..'G:'..interface..':'..group
  call('SADD', key, channel)
  keep(key, DAY)
  call('SADD', P..'gi:'..group, interface)
  keep(P..'gi:'..group, DAY)
  call('SADD', P..'ig:'..interface, group)
  keep(P..'ig:'..interface, DAY)
  call('SADD', P..'sg:'..channel, group)
  keep(P..'sg:'..channel, DAY)
  call('SADD', P..'groups', group)
  keep(P..'groups', DAY)
end

local function forget_if_empty(group)
  if call('EXISTS', P..'gi:'..group, P..'g:'..group) == 0 then call('SREM', P..'groups', group) end
end

local function drop_held(group, interface)
  call('DEL', P..'G:'..interface..':'..group)
  call('SREM', P..'gi:'..group, interface)
  call('SREM', P..'ig:'..interface, group)
  forget_if_empty(group)
end

local function remove_held(group, interface, channel)
  local key = P..'G:'..interface..':'..group
  local was_member = call('SREM', key, channel) == 1
  call('SREM', P..'sg:'..channel, group)
  if was_member and call('EXISTS', key) == 0 then drop_held(group, interface) end
  return was_member
end

-- The members that no interface holds, as {channel, capacity}; those whose time is over are removed.
local function ordinary(group)
  local found, key = {}, P..'g:'..group
  local all = call('HGETALL', key)
  for i = 1, #all, 2 do
    local deadline, capacity = string.match(all[i + 1], '^(%d+) (%d+)$')
    if tonumber(deadline) > now then found[#found + 1] = {all[i], tonumber(capacity)}
    else call('HDEL', key, all[i]) end
  end
  return found
end

-- Whether this Redis has lost its data a moment ago: interfaces will report members that it does not know yet.
local function is_early()
  if call('SET', P..'epoch', now, 'NX', 'PX', 7 * DAY) then
    call('SET', P..'grace', 1, 'PX', 2500)
    return true
  end
  return call('EXISTS', P..'grace') == 1
end

-- One notice per interface with members, except one of them; an ordinary send to the others.
-- Returns how many were refused, and the last of them.
local function group_send(group, tail, except, id, lifetime)
  local early = is_early()
  for _, interface in ipairs(call('SMEMBERS', P..'gi:'..group)) do
    if interface ~= except and (not early or call('HEXISTS', P..'reported', interface) == 1) then
      tell(interface, 'G', group, 'B', tail)
    end
  end
  if early and call('RPUSH', P..'early', group, tail) <= 2000 then call('PEXPIRE', P..'early', 5000) end
  local refused, last = 0, ''
  for n, member in ipairs(ordinary(group)) do
    local channel = member[1]
    local queue = queue_of(channel)
    if room(queue, member[2]) > 0 then
      put(queue, struct.pack(HEADER, now + lifetime, now, lifetime, 0, 0, 0, id..'.'..n, channel, '')..tail, lifetime)
      count(queue, 'm', 1)
    else
      count(queue, 'f', 1)
      count(queue, 'd', 1)
      refused, last = refused + 1, channel
    end
  end
  return refused, last
end
