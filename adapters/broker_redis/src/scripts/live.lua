-- Which nodes are there. Answers {this server's ms, {node, the end of its lease, …}}.
--
-- KEYS   1 the leases of all nodes
-- ARGV   1 the most nodes

local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return { now, redis.call('ZRANGE', KEYS[1], 0, tonumber(ARGV[1]) - 1, 'WITHSCORES') }
