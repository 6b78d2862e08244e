-- Reads a piece of the log. Answers {epoch, first, last, earlier lives, 1 if there is more, entries, latest, the first
-- that is here}: what a durable room has before that one is in the archive, and nothing is read where the reader is
-- there.
--
-- ARGV   4 packed: behind this offset, and the most messages and bytes of data  5 1 for the newest of each key, too

local length = redis.call('LLEN', KEYS[2])
local bytes, count = trim(KEYS[2], math.max(b, 0), length, messages_max, bytes_max, now - age_max, 1024, 1024)
-- Of what is beyond the limit, and still to be dropped, nothing is read.
local beyond = math.max(count - messages_max, 0)
local here = o - (count - beyond) + 1
local first, oldest = here, f
-- What the log of a durable room dropped, and all before it, is kept no longer, in the archive neither.
if d == 1 then f = math.max(f, o - messages_max + 1, (count ~= length or beyond > 0) and here or 0) end
if bytes ~= math.max(b, 0) or f ~= oldest then
    b = bytes
    redis.call('HSET', KEYS[1], 'z', struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
end
count = count - beyond
if ARGV[1] == '' and f < first then first = f end
local after, messages, wanted = struct.unpack('>ddd', ARGV[4])
if after < first - 1 then after = first - 1 end
local entries, at, full = {}, after - here + 1, after < here - 1
while not full and at < count and #entries < messages do
    local step = math.min(32, messages - #entries)
    for _, entry in ipairs(redis.call('LRANGE', KEYS[2], beyond + at, beyond + at + step - 1)) do
        local size = size_and_time(entry)
        if size > wanted and #entries > 0 then
            full = true
            break
        end
        entries[#entries + 1] = entry
        wanted = wanted - size
    end
    at = after - here + 1 + #entries
end

local latest = {}
if ARGV[5] == '1' then
    local keys = redis.call('ZRANGE', KEYS[4], 0, -1)
    if #keys > 0 then latest = redis.call('HMGET', KEYS[3], unpack(keys)) end
end
local more = (count > 0 and after + #entries < o) and 1 or 0
earlier = earlier or redis.call('HGET', KEYS[1], 'p') or ''
return { e, whole(first), whole(o), earlier, more, entries, latest, whole(here) }
