-- What is no entry of ours has no size, and is older than anything.
local function size_and_time(entry)
    local size, at = string.match(entry, '^%S+ %S+ %S+ (%d+) (%-?%d+)\n')
    return tonumber(size) or 0, tonumber(at) or 0
end

-- Drops from the old end of a log of so many entries and bytes what is beyond the limits; answers how many bytes and
-- entries are left. At most `steps` are dropped, and `old` of them for being from before `since`: what is left over
-- falls to the next calls.
local function trim(log, bytes, count, messages_max, bytes_max, since, steps, old)
    while steps > 0 and (count > messages_max or (bytes > bytes_max and count > 0)) do
        bytes, count, steps = bytes - size_and_time(redis.call('LPOP', log)), count - 1, steps - 1
    end
    while count > 0 and old > 0 and steps > 0 do
        local size, at = size_and_time(redis.call('LINDEX', log, 0))
        if at >= since then break end
        redis.call('LPOP', log)
        bytes, count, old, steps = bytes - size, count - 1, old - 1, steps - 1
    end
    return (count == 0 or bytes < 0) and 0 or bytes, count
end
