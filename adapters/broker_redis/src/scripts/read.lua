-- Reads a piece of the log. Answers {epoch, first, last, earlier lives, 1 if there is more, entries, latest, the first
-- that is here}: what a durable room has before that one is in the archive, and nothing is read where the reader is
-- there.
--
-- ARGV   4 packed: behind this offset, and the most messages and bytes of data  5 1 for the newest of each key, too

local before = load_head()
if before then return before end
local length = redis.call('LLEN', KEYS[2])
local count, dropped = trim(length, 1024, 1024)

-- Of what is beyond the limit, and still to be dropped, nothing is read.
local beyond = math.max(count - messages_max, 0)
count = count - beyond
local here = o - count + 1
local first = here
local moved = keep_first(count + beyond ~= length or beyond > 0, count)
if dropped or moved then save_head() end
if ARGV[1] == '' and f < first then first = f end
local after, messages, bytes = struct.unpack('>ddd', ARGV[4])
if after < first - 1 then after = first - 1 end
local entries, at, full = {}, after - here + 1, after < here - 1
while not full and at < count and #entries < messages do
    local step = math.min(32, messages - #entries)
    for _, entry in ipairs(redis.call('LRANGE', KEYS[2], beyond + at, beyond + at + step - 1)) do
        local size = size_and_time(entry)
        if size > bytes and #entries > 0 then
            full = true
            break
        end
        entries[#entries + 1] = entry
        bytes = bytes - size
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
