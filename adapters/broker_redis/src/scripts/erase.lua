-- Takes what one message said out of the log; its place remains. Answers 1, or 0 if the log does not have it.
--
-- ARGV   8 the epoch that the caller read it in  9 its offset  10 the body of what remains

local first = load_head()
if first then return first end
if e ~= ARGV[8] then return 0 end
local count = redis.call('LLEN', KEYS[2])
local place = tonumber(ARGV[9]) - (o - count + 1)
if place < 0 or place >= count then return 0 end
local entry = redis.call('LINDEX', KEYS[2], place)
local front, number, offset, size, at = string.match(entry, '^(%S+) (%S+) (%S+) (%d+) (%-?%d+)\n')
if offset ~= ARGV[9] then return 0 end
redis.call('LSET', KEYS[2], place, front .. ' ' .. number .. ' ' .. offset .. ' 0 ' .. at .. '\n' .. ARGV[10])
redis.call('HSET', KEYS[1], 'b', whole(b - tonumber(size)))
return 1
