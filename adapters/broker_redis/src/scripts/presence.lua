-- What the scripts of presence begin with.
--
-- KEYS   1 who: the number of the last event, and of all connections  2 the members' names, in order
--        3 their connections  4 their data  5 their connections over one node

local function whole(x) return string.format('%.0f', x) end

-- Tells everybody of a change, and how many are there after it. The numbers begin with the time, so that they go on growing when Redis has lost them.
local function tell(channel, room, change, member, data)
    if redis.call('HEXISTS', KEYS[1], 's') == 0 then
        local time = redis.call('TIME')
        redis.call('HSET', KEYS[1], 's', whole(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)))
    end
    local number = redis.call('HINCRBY', KEYS[1], 's', 1)
    local total = whole(redis.call('ZCARD', KEYS[2]))
    redis.call(SAY, channel, 'presence ' .. whole(number) .. ' ' .. change .. ' ' .. member .. ' ' .. room .. ' ' .. total .. '\n' .. data)
end

-- Sets over how many connections of the node a member is here.
local function set(member, after, channel, room)
    local before = tonumber(redis.call('HGET', KEYS[5], member) or '0')
    if after == before then return end
    if after > 0 then
        redis.call('HSET', KEYS[5], member, whole(after))
    else
        redis.call('HDEL', KEYS[5], member)
    end
    local total = redis.call('HINCRBY', KEYS[3], member, after - before)
    redis.call('HINCRBY', KEYS[1], 'c', after - before)
    if total <= 0 then
        local data = redis.call('HGET', KEYS[4], member) or ''
        redis.call('HDEL', KEYS[3], member)
        redis.call('HDEL', KEYS[4], member)
        redis.call('ZREM', KEYS[2], member)
        tell(channel, room, 'leave', member, data)
    elseif total == after - before then
        redis.call('ZADD', KEYS[2], 0, member)
        tell(channel, room, 'join', member, '')
    end
end
