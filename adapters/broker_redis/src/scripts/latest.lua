-- What a room has of the newest messages by key. Answers {epoch, number of the newest publish, earlier lives, this
-- server's ms, entries}, oldest first. Changes nothing.
--
-- KEYS   1 head  2 latest  3 keys of latest by age

local h = redis.call('HMGET', KEYS[1], 'e', 'n', 'p')
if not h[1] then return false end
local keys, entries = redis.call('ZRANGE', KEYS[3], 0, -1), {}
if #keys > 0 then
    for _, entry in ipairs(redis.call('HMGET', KEYS[2], unpack(keys))) do
        if entry then entries[#entries + 1] = entry end
    end
end
local time = redis.call('TIME')
local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
return { h[1], h[2], h[3] or '', now, entries }
