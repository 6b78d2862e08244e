-- Positions a publish, keeps it and hands it to all nodes, in one step. Answers {epoch, offset or 0, 1 if it was
-- published before, the entry of that one if the room is durable and has it}; or that something is to be done first.
--
-- ARGV   3 goes on with: bytes of its data; ms that its msg_id is remembered; the most remembered in half that time
--        4 class: r, l or d; behind it w where replicas are waited for, and a where the archive of a durable room was
--        asked for the msg_id  5 its entry behind the offset  6 whose msg_id it is and the msg_id, or nothing
--        7 the room's channel; where there is one of them  8 its namespace's  9 what it replaces,
--        for l  10 the fence of its user's connection; then KEYS 8 is the user's

local class, name = string.byte(ARGV[4]), ARGV[6]
if ARGV[10] then
    local fence = redis.call('HGET', KEYS[8], 'f')
    -- A Redis that has lost it may have been told of an older connection first.
    if not fence or tonumber(fence) < tonumber(ARGV[10]) then
        return redis.error_reply('UNFENCED nobody has said who speaks for the user')
    end
    if fence ~= ARGV[10] then return redis.error_reply('FENCED a newer connection speaks for the user') end
end
local size, window, remembered_max = struct.unpack('>ddd', ARGV[3], 41)
local clock
if name ~= '' then
    -- Those that there have been.
    for back = 0, math.min(2, gen) do
        local found = redis.call('HGET', KEYS[5 + (gen - back) % 3], name)
        if found then
            -- A write behind which replicas can be waited for, as behind the first time.
            if string.find(ARGV[4], 'w', 2, true) then redis.call('HSET', KEYS[1], 'e', e) end
            local there = ''
            if ARGV[1] == '' and found ~= '0' then
                there = redis.call('LINDEX', KEYS[2], tonumber(found) - o - 1) or ''
            end
            return { e, found, 1, there }
        end
    end
    clock = server_time()
    -- What a durable room has may be older than what is remembered here.
    if ARGV[1] == '' and class == RELIABLE and (clock - begun < window or clock < begun)
        and not string.find(ARGV[4], 'a', 2, true) then
        return redis.status_reply('ASK')
    end
end

if n >= OFFSET_MAX then return redis.error_reply('ROOMFULL the room has numbered its last publish') end
local offset = '0'
if class == RELIABLE then
    if o >= OFFSET_MAX then return redis.error_reply('ROOMFULL the log has given out its last offset') end
    o = o + 1
    offset = whole(o)
end
n = n + 1
local entry = e .. ' ' .. whole(n) .. ' ' .. offset .. ' ' .. ARGV[5]

if class == RELIABLE then
    local left
    if messages_max == 0 or size > bytes_max then
        -- What lies before it can't be read over it.
        redis.call('UNLINK', KEYS[2])
        b, left = -1, 0
    else
        local count = redis.call('RPUSH', KEYS[2], entry)
        -- A log that was lost alone begins again.
        b = (count == 1) and size or math.max(b, 0) + size
        if count == 1 then redis.call('PEXPIRE', KEYS[2], kept * 2) end
        b, left = trim(KEYS[2], b, count, messages_max, bytes_max, now - age_max, 64, (o % 16 == 0) and 32 or 0)
        if left == count then left = nil end
    end
    -- What the log of a durable room dropped, and all before it, is kept no longer, in the archive neither.
    if d == 1 then f = math.max(f, o - messages_max + 1, left and o - left + 1 or 0) end
elseif class == LATEST then
    local key = ARGV[9] or ''
    local bytes = (tonumber(redis.call('HGET', KEYS[1], 'lb')) or 0) - redis.call('HSTRLEN', KEYS[3], key) + #entry
    redis.call('HSET', KEYS[3], key, entry)
    redis.call('ZADD', KEYS[4], whole(n), key)
    local keys = redis.call('ZCARD', KEYS[4])
    while keys > 1 and (keys > LATEST_KEYS_MAX or bytes > LATEST_BYTES_MAX) do
        local oldest = redis.call('ZPOPMIN', KEYS[4])[1]
        bytes = bytes - redis.call('HSTRLEN', KEYS[3], oldest)
        redis.call('HDEL', KEYS[3], oldest)
        keys = keys - 1
    end
    -- Also where the others were lost alone.
    if keys == 1 then bytes = #entry end
    redis.call('HSET', KEYS[1], 'lb', whole(bytes))
    for place = 3, 4 do redis.call('PEXPIRE', KEYS[place], kept * 2) end
end

if name ~= '' then
    -- By this server's clock: those of the nodes differ.
    local fresh = gen_at == 0
    if fresh or clock - gen_at >= window / 2 or clock < gen_at
        or redis.call('HLEN', KEYS[5 + gen % 3]) >= remembered_max then
        if not fresh then gen = gen + 1 end
        gen_at, fresh = clock, true
        redis.call('UNLINK', KEYS[5 + gen % 3])
    end
    redis.call('HSET', KEYS[5 + gen % 3], name, offset)
    if fresh then redis.call('PEXPIRE', KEYS[5 + gen % 3], window * 2) end
end

redis.call('HSET', KEYS[1], 'z', struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
redis.call(SAY, ARGV[7], entry)
if ARGV[8] and ARGV[8] ~= '' then redis.call('PUBLISH', ARGV[8], entry) end
return { e, offset, 0, '' }
