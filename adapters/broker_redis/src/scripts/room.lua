-- What all scripts begin with: the room's head, as it is now.
--
-- KEYS   1 head  2 log  3 latest  4 keys of latest by age  5, 6, 7 what was published lately, by msg_id
-- ARGV   1 an epoch that nobody has used; nothing for a durable room  2 the server and its life, as the node knows it
--        3 the node's clock in ms  4, 5, 6 the most messages, bytes and ms kept  7 ms that an unused room is kept
--
-- The log is a list. Its last entry is the message at offset `o`, so that an entry's place says its offset.
-- Every entry begins with `epoch number offset bytes at\n`; bytes are those of its data. The head's `b` is the sum
-- of those, or `-` where there surely is no log: then `publish_plain` may go on from the head alone.
--
-- The lives of a durable room begin in the archive, and `begin` writes them here: `d` is 1 then, `s` is the server's time
-- of it, and `f` is the oldest offset that the room has, here or in the archive.

local e, o, n, b, life, gen, gen_at, kept_at, earlier, begun, f
local now = tonumber(ARGV[3])
local messages_max, bytes_max, age_max = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])

local function whole(x) return string.format('%.0f', x) end

local function server_time()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Calls of a connection that was made in an earlier life are refused: rooms never go back to one. The lives of a Cluster's
-- servers have no numbers.
local function outlived(of_room)
    local here, there = string.match(ARGV[2], '^@(%d+)%-'), string.match(of_room or '', '^@(%d+)%-')
    if not here or not there or tonumber(there) <= tonumber(here) then return nil end
    return redis.error_reply('OUTLIVED ' .. there)
end

-- Answers nothing; for a durable room whose next life is to begin first, what is to be answered: then nothing was done.
local function load_head()
    local h = redis.call('HMGET', KEYS[1], 'e', 'o', 'n', 'b', 'l', 'g', 'ga', 'k', 'p', 'd', 's', 'f')
    e, o, n, b = h[1], tonumber(h[2]), tonumber(h[3]), tonumber(h[4]) or 0
    life, gen, gen_at, kept_at, earlier = h[5], tonumber(h[6]), tonumber(h[7]), tonumber(h[8]), h[9]
    begun, f = tonumber(h[11]) or 0, tonumber(h[12])
    local refused = life ~= ARGV[2] and outlived(life)
    if refused then return refused end
    if ARGV[1] == '' and not (e and life == ARGV[2] and h[10] == '1' and f) then
        -- The offsets of a room that was none go on; those of one that was are known to the archive.
        local behind = (e and h[10] ~= '1') and whole(o) or '0'
        return redis.status_reply('SUCCEED ' .. behind .. ' ' .. (e or ''))
    end
    if not e then
        -- Never used, forgotten or lost: what may be left of it belongs to nobody.
        redis.call('UNLINK', KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
        e, o, n, b, gen, gen_at, kept_at, earlier = ARGV[1], 0, 0, 0, 0, 0, 0, ''
        redis.call('HSET', KEYS[1], 'e', e, 'o', '0', 'n', '0', 'b', '-', 'l', ARGV[2], 'g', '0', 'ga', '0', 'k', '0', 'p', '')
        redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[7]) * 2)
    elseif life ~= ARGV[2] then
        -- Another server, or the same one after a restart: it may have lost the newest. Offsets go on, under
        -- another epoch, and the end of the old one is kept: who has read up to it has missed nothing.
        if string.find(e .. ': ' .. earlier, ARGV[1] .. ':', 1, true) then
            return redis.error_reply('EPOCHUSED this room has had that epoch: draw another one')
        end
        earlier = e .. ':' .. whole(o) .. ' ' .. earlier
        local ends = {}
        for one in string.gmatch(earlier, '%S+') do
            if #ends < 4 then ends[#ends + 1] = one end
        end
        earlier, e = table.concat(ends, ' '), ARGV[1]
        redis.call('HSET', KEYS[1], 'e', e, 'l', ARGV[2], 'p', earlier, 'd', '0')
    end
    -- The time of expiry is set anew only now and then: a room in use is never near it.
    if now - kept_at > tonumber(ARGV[7]) / 4 or now < kept_at then
        for key = 1, 4 do redis.call('PEXPIRE', KEYS[key], tonumber(ARGV[7]) * 2) end
        -- Who brings no time only puts it off.
        if now > 0 then redis.call('HSET', KEYS[1], 'k', ARGV[3]) end
    end
end

-- What is no entry of ours has no size, and is older than anything.
local function size_and_time(entry)
    local size, at = string.match(entry, '^%S+ %S+ %S+ (%d+) (%-?%d+)\n')
    return tonumber(size) or 0, tonumber(at) or 0
end

-- Drops from the old end what is beyond the limits; answers how many are left. At most `steps` are dropped, and
-- `old` of them for their age: what is left over falls to the next calls.
local function trim(count, steps, old)
    local before = b
    while steps > 0 and (count > messages_max or (b > bytes_max and count > 0)) do
        b, count, steps = b - size_and_time(redis.call('LPOP', KEYS[2])), count - 1, steps - 1
    end
    while count > 0 and old > 0 and steps > 0 do
        local size, at = size_and_time(redis.call('LINDEX', KEYS[2], 0))
        if now - at <= age_max then break end
        redis.call('LPOP', KEYS[2])
        b, count, old, steps = b - size, count - 1, old - 1, steps - 1
    end
    if count == 0 or b < 0 then b = 0 end
    return count, b ~= before
end

-- What the log of a durable room dropped, and all before it, is kept no longer, in the archive neither.
local function keep_first(dropped, count)
    if not f then return end
    local first = math.max(f, o - messages_max + 1)
    if dropped then first = math.max(first, o - count + 1) end
    if first ~= f then
        f = first
        redis.call('HSET', KEYS[1], 'f', whole(f))
    end
end
