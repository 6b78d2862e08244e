-- Says over how many connections of a node a user is here; takes a seat with it, or the user over. Answers
-- {1, or 0 where the user has as many as it may have, or 2 where that is in doubt; the user's fence; over how many
-- nodes it is here; for how many ms the node has been silent that has been so for the longest of those in doubt}.
--
-- KEYS   1 the user: `f` its fence, `s` over how many nodes it was, `n` and a node's name what that one said: its
--        connections, the version, and when
-- ARGV   1 the node  2 its name before, or nothing  3 its connections  4 the version of that number
--        5 the most connections, `w` where the newest wins, or `t` where it is only told
--        6 the largest fence that the node knows, or 0  7, 8 ms that it is kept, in use and not
--        9 the channel of all nodes  10 the user  11 ms that a lease lasts  12 ms that the
--        seat has been waited for  from 13 on the nodes that are there, each with when its lease ends

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local live = {}
for i = 13, #ARGV, 2 do live[ARGV[i]] = tonumber(ARGV[i + 1]) end

local function whole(x) return string.format('%.0f', x) end

local fence, spread, others, nodes, mine, known, in_use = 0, 1, 0, 0, 0, -1, false
local doubted, silent_for = 0, 0
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
    local name, value = all[i], all[i + 1]
    local node = string.sub(name, 2)
    if name == 'f' then
        fence = tonumber(value) or 0
    elseif name == 's' then
        spread = tonumber(value) or 1
    else
        local count, version, at = string.match(value, '^(%d+) (%d+) (%d+)$')
        count = tonumber(count)
        if not count then
            -- What can't be read is none of ours.
        elseif node == ARGV[1] then
            mine, known = count, tonumber(version)
        elseif node == ARGV[2] or (not live[node] and now - tonumber(at) > 60000) then
            -- Nobody speaks under that name again. One that has just come may not be in a list that was just read.
            redis.call('HDEL', KEYS[1], name)
        elseif live[node] and count > 0 then
            in_use = true
            -- One whose lease has run out may come back, and counts only then.
            if live[node] > now then
                others, nodes = others + count, nodes + 1
                -- One that has renewed its lease since the seat was first asked for is not gone.
                local silent = now - live[node] + tonumber(ARGV[11])
                if silent > tonumber(ARGV[12]) then doubted, silent_for = doubted + count, math.max(silent_for, silent) end
            end
        end
    end
end

local count, version, rule = tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
-- What was said later counts, whatever came first.
local is_new = version > known
if not is_new then count = mine end
if rule ~= 't' and rule ~= 'w' and others + count > tonumber(rule) then
    local word = others - doubted + count > tonumber(rule) and 0 or 2
    return { word, whole(fence), nodes + (mine > 0 and 1 or 0), whole(silent_for) }
end
if is_new then redis.call('HSET', KEYS[1], 'n' .. ARGV[1], whole(count) .. ' ' .. whole(version) .. ' ' .. whole(now)) end
if rule == 'w' then
    -- The numbers begin with the time, so that they go on growing when this server has lost them.
    fence = math.max(fence, tonumber(ARGV[6])) + 1
    if fence < now then fence = now end
    redis.call('HSET', KEYS[1], 'f', whole(fence))
    redis.call(SAY, ARGV[9], 'seat ' .. whole(fence) .. ' ' .. ARGV[10])
elseif tonumber(ARGV[6]) > fence then
    fence = tonumber(ARGV[6])
    redis.call('HSET', KEYS[1], 'f', whole(fence))
end
if count > 0 then nodes, in_use = nodes + 1, true end
if nodes ~= spread and nodes > 0 then
    redis.call('HSET', KEYS[1], 's', nodes)
    redis.call(SAY, ARGV[9], 'spread ' .. nodes .. ' ' .. ARGV[10])
end
redis.call('PEXPIRE', KEYS[1], in_use and ARGV[7] or ARGV[8])
return { 1, whole(fence), nodes, 0 }
