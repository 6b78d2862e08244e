-- Positions a publish that nothing is kept of, neither in the log nor under a msg_id, and hands it to all nodes.
-- Answers {epoch, offset}; nothing, and nothing is done, where the head is to be changed in more than that: then
-- `publish` is to be called.
--
-- KEYS   1 head
-- ARGV   1 the server and its life, as the node knows it  2, 3 between which of the node's ms the time of expiry was
--        set  4 the last offset  5 bytes of its data, when it was published and its body, as in an entry
--        6 the room's channel  7 its namespace's, or nothing

local h = redis.call('HMGET', KEYS[1], 'l', 'b', 'k', 'e', 'o', 'n')
if h[1] ~= ARGV[1] or h[2] ~= '-' then return false end
local kept_at, o = tonumber(h[3]), tonumber(h[5]) + 1
local n = tonumber(h[6]) + 1
if kept_at < tonumber(ARGV[2]) or kept_at > tonumber(ARGV[3]) or math.max(o, n) > tonumber(ARGV[4]) then return false end
local offset, number = string.format('%.0f', o), string.format('%.0f', n)
redis.call('HSET', KEYS[1], 'o', offset, 'n', number)
local entry = h[4] .. ' ' .. number .. ' ' .. offset .. ' ' .. ARGV[5]
redis.call(SAY, ARGV[6], entry)
if ARGV[7] ~= '' then redis.call('PUBLISH', ARGV[7], entry) end
return { h[4], offset }
