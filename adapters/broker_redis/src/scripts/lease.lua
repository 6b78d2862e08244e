-- Renews a node's lease, also one that has run out and that nobody has claimed. Answers {1 if it was there, nodes
-- whose leases have run out}.
--
-- KEYS   1 the leases of all nodes, by when they run out  2 nodes that are gone
-- ARGV   1 the node  2 ms that the lease lasts  3 the most nodes to be named  4 ms that what is said of members stays

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local was = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not was and redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return { 0, {} } end
redis.call('ZADD', KEYS[1], string.format('%.0f', now + tonumber(ARGV[2])), ARGV[1])
-- Where no node is left, nobody is there to be taken back but what runs out by itself.
for key = 1, 2 do redis.call('PEXPIRE', KEYS[key], ARGV[4]) end
local over = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[3])
return { was and 1 or 0, over }
