-- What a room has of the newest messages by key. Answers {epoch, number of the newest publish, earlier lives, this
-- server's ms, entries}, oldest first. Changes nothing.
--
-- KEYS   1 head  2 latest  3 keys of latest by age

local h = redis.call('HMGET', KEYS[1], 'z', 'p')
if not h[1] or #h[1] < HEAD_MIN then return false end
local e, _, _, n = struct.unpack(HEAD, h[1])
local keys, entries = redis.call('ZRANGE', KEYS[3], 0, -1), {}
if #keys > 0 then
    for _, entry in ipairs(redis.call('HMGET', KEYS[2], unpack(keys))) do
        if entry then entries[#entries + 1] = entry end
    end
end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return { e, string.format('%.0f', n), h[2] or '', now, entries }
