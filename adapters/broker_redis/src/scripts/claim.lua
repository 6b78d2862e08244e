-- Takes the lease of a node that has run out, for good. Answers 1 if it has.
--
-- KEYS   1 the leases of all nodes, by when they run out  2 nodes that are gone
-- ARGV   1 the node

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local until_ms = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not until_ms or tonumber(until_ms) > now then return 0 end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('SADD', KEYS[2], ARGV[1])
return 1
