-- Takes what one message said out of the log; its place remains. Answers 1, or 0 if the log does not have it.
--
-- ARGV   4 the epoch that the caller read it in  5 its offset  6 the body of what remains

if e ~= ARGV[4] then return 0 end
local count = redis.call('LLEN', KEYS[2])
local place = tonumber(ARGV[5]) - (o - count + 1)
if place < 0 or place >= count then return 0 end
local entry = redis.call('LINDEX', KEYS[2], place)
local front, number, offset, size, at = string.match(entry, '^(%S+) (%S+) (%S+) (%d+) (%-?%d+)\n')
if offset ~= ARGV[5] then return 0 end
redis.call('LSET', KEYS[2], place, front .. ' ' .. number .. ' ' .. offset .. ' 0 ' .. at .. '\n' .. ARGV[6])
b = math.max(b - tonumber(size), 0)
redis.call('HSET', KEYS[1], 'z', struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
return 1
