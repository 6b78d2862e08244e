-- Answers {the number of the last event, members, connections, names, their connections, their data}.
--
-- ARGV   1 the most names

local names = redis.call('ZRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1)
local counts, data = {}, {}
-- In steps: a call takes only so many arguments.
for from = 1, #names, 512 do
    local some = {}
    for at = from, math.min(from + 511, #names) do some[#some + 1] = names[at] end
    for _, one in ipairs(redis.call('HMGET', KEYS[3], unpack(some))) do counts[#counts + 1] = one end
    for _, one in ipairs(redis.call('HMGET', KEYS[4], unpack(some))) do data[#data + 1] = one or '' end
end
local who = redis.call('HMGET', KEYS[1], 's', 'c')
return { who[1] or '0', redis.call('ZCARD', KEYS[2]), who[2] or '0', names, counts, data }
