-- Renews a node's lease. Answers {1 if it had not run out, nodes whose leases have}.
--
-- KEYS   1 the leases of all nodes, by when they run out
-- ARGV   1 the node  2 ms that the lease lasts  3 the most nodes to be named

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local was = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '0')
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
local gone = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[3])
return { was > now and 1 or 0, gone }
