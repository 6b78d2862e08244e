-- In which of its lives this server is: `@` and a number that only grows.
--
-- A life ends with the process, and when it has been a replica: then its data may be another's. The id of its history
-- changes at more than that, when a first replica comes (a backup by `--rdb` is one) or when there has been none for an
-- hour; then the server does not remember the id before, as it does behind a promotion.
--
-- KEYS   1 what is known of it
-- ARGV   1 the process  2 the id of its history  3 1 where it remembers no earlier one  4 the newest life that the
--        node has met  5 the life that it knows of over this connection, or 0: who has lost the key is told it again

local h = redis.call('HMGET', KEYS[1], 'process', 'history', 'number')
local known = tonumber(h[3]) or tonumber(ARGV[5])
local is_here = h[1] == ARGV[1] and (h[2] == ARGV[2] or ARGV[3] == '1')
local is_same = (is_here or (not h[1] and known > 0)) and known >= tonumber(ARGV[4])
local number = known
if not is_same then
    local time = redis.call('TIME')
    local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
    number = math.max(now, known + 1, tonumber(ARGV[4]))
end
local text = string.format('%.0f', number)
if not is_same or h[1] ~= ARGV[1] or h[2] ~= ARGV[2] then
    redis.call('HSET', KEYS[1], 'process', ARGV[1], 'history', ARGV[2], 'number', text)
end
return '@' .. text
