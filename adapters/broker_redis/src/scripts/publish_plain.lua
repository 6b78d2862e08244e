-- Positions a publish that nothing is kept of, neither in the log nor under a msg_id, and hands it to all nodes.
-- Answers {epoch, offset}; nothing, and nothing is done, where the head is to be changed in more than that: then
-- `publish` is to be called.
--
-- KEYS   1 head
-- ARGV   1 the server and its life, as the node knows it  2 packed: between which of the node's ms the time of expiry
--        was set  3 its entry behind the offset  4 the room's channel  5 its namespace's, or nothing

local z = redis.call('HGET', KEYS[1], 'z')
if not z or #z < HEAD_MIN then return false end
local e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = struct.unpack(HEAD, z)
if life ~= ARGV[1] or b >= 0 then return false end
local since, till = struct.unpack('>dd', ARGV[2])
if kept_at < since or kept_at > till or o >= OFFSET_MAX or n >= OFFSET_MAX then return false end
o, n = o + 1, n + 1
redis.call('HSET', KEYS[1], 'z', struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
local offset = string.format('%.0f', o)
local entry = e .. ' ' .. string.format('%.0f', n) .. ' ' .. offset .. ' ' .. ARGV[3]
redis.call(SAY, ARGV[4], entry)
if ARGV[5] ~= '' then redis.call('PUBLISH', ARGV[5], entry) end
return { e, offset }
