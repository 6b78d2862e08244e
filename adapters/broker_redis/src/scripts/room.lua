-- What all scripts but `publish_plain` begin with: the room's head, as it is now.
--
-- KEYS   1 head  2 log  3 latest  4 keys of latest by age  5, 6, 7 what was published lately, by msg_id
-- ARGV   1 an epoch that nobody has used; nothing for a durable room  2 the server and its life, as the node knows it
--        3 packed: the node's clock in ms; the most messages, bytes and ms kept; ms that an unused room is kept
--
-- The log is a list. Its last entry is the message at offset `o`, so that an entry's place says its offset.
-- Every entry begins with `epoch number offset bytes at\n`; bytes are those of its data.
--
-- The lives of a durable room begin in the archive, and `begin` writes them here.

local e, d, o, n, b, gen, gen_at, kept_at, begun, f, life
local earlier
local now, messages_max, bytes_max, age_max, kept = struct.unpack('>ddddd', ARGV[3])

local function whole(x) return string.format('%.0f', x) end

local function server_time()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

local function save_head()
    redis.call('HSET', KEYS[1], 'z',
        struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
end

-- Calls of a connection that was made in an earlier life are refused: rooms never go back to one. The lives of a Cluster's
-- servers have no numbers.
local function outlived(of_room)
    local here, there = string.match(ARGV[2], '^@(%d+)%-'), string.match(of_room or '', '^@(%d+)%-')
    if not here or not there or tonumber(there) <= tonumber(here) then return nil end
    return redis.error_reply('OUTLIVED ' .. there)
end

-- Another server, or the same one after a restart: it may have lost the newest. Offsets go on, under another epoch, and
-- the end of the old one is kept: who has read up to it has missed nothing.
local function begin_epoch()
    earlier = redis.call('HGET', KEYS[1], 'p') or ''
    if string.find(e .. ': ' .. earlier, ARGV[1] .. ':', 1, true) then
        return redis.error_reply('EPOCHUSED this room has had that epoch: draw another one')
    end
    local ends = {}
    for one in string.gmatch(e .. ':' .. whole(o) .. ' ' .. earlier, '%S+') do
        if #ends < 4 then ends[#ends + 1] = one end
    end
    earlier, e, life, d, f = table.concat(ends, ' '), ARGV[1], ARGV[2], 0, -1
    redis.call('HSET', KEYS[1], 'p', earlier)
end

-- Reads the head, or makes one. Answers nothing; for a durable room whose next life is to begin first, and where a call is
-- refused, what is to be answered: then nothing was done.
local function load_head()
    local z = redis.call('HGET', KEYS[1], 'z')
    if z then
        if #z < HEAD_MIN then return redis.error_reply('ERR a head of another version') end
        e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = struct.unpack(HEAD, z)
    end
    local is_same = life == ARGV[2]
    local refused = z and not is_same and outlived(life)
    if refused then return refused end
    if ARGV[1] == '' and not (z and is_same and d == 1) then
        -- The offsets of a room that was none go on; those of one that was are known to the archive.
        local behind = (z and d ~= 1) and whole(o) or '0'
        return redis.status_reply('SUCCEED ' .. behind .. ' ' .. (e or ''))
    end
    if not z then
        -- Never used, forgotten or lost: what may be left of it belongs to nobody.
        redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
        e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = ARGV[1], 0, 0, 0, -1, 0, 0, 0, 0, -1, ARGV[2]
        earlier = ''
    elseif not is_same then
        refused = begin_epoch()
        if refused then return refused end
    end
    -- The time of expiry is set anew only now and then: a room in use is never near it. Who brings no time only puts
    -- it off.
    local is_due = not z or now - kept_at > kept / 4 or now < kept_at
    if is_due and now > 0 then kept_at = now end
    if is_due or not is_same then save_head() end
    if is_due then
        for key = 1, 4 do redis.call('PEXPIRE', KEYS[key], kept * 2) end
    end
end

-- What is no entry of ours has no size, and is older than anything.
local function size_and_time(entry)
    local size, at = string.match(entry, '^%S+ %S+ %S+ (%d+) (%-?%d+)\n')
    return tonumber(size) or 0, tonumber(at) or 0
end

-- Drops from the old end what is beyond the limits; answers how many are left, and whether any were dropped. At most
-- `steps` are, and `old` of them for their age: what is left over falls to the next calls.
local function trim(count, steps, old)
    local was_none = b < 0
    local before = was_none and 0 or b
    b = before
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
    local changed = b ~= before
    if was_none and not changed then b = -1 end
    return count, changed
end

-- What the log of a durable room dropped, and all before it, is kept no longer, in the archive neither. Answers whether
-- that has changed.
local function keep_first(dropped, count)
    if d ~= 1 then return false end
    local first = math.max(f, o - messages_max + 1)
    if dropped then first = math.max(first, o - count + 1) end
    local moved = first ~= f
    f = first
    return moved
end
