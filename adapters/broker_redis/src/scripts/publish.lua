-- Positions a publish, keeps it and hands it to all nodes, in one step. Answers {epoch, offset or 0, 1 if it was
-- published before, the entry of that one if the room is durable and has it}; or that something is to be done first.
--
-- ARGV   4 packed: bytes of its data; ms that its msg_id is remembered; the most remembered in half that time
--        5 class: r, l or d  6 what it replaces, for l  7 its entry behind the offset
--        8 whose msg_id it is and the msg_id, or nothing  9 the room's channel  10 its namespace's, or nothing
--        11 of `w` where replicas are waited for, and `a` where the archive of a durable room was asked for the msg_id
--        12 the fence of its user's connection, or nothing; then KEYS 8 is the user's

if ARGV[12] ~= '' then
    local fence = redis.call('HGET', KEYS[8], 'f')
    -- A Redis that has lost it may have been told of an older connection first.
    if not fence or tonumber(fence) < tonumber(ARGV[12]) then
        return redis.error_reply('UNFENCED nobody has said who speaks for the user')
    end
    if fence ~= ARGV[12] then return redis.error_reply('FENCED a newer connection speaks for the user') end
end
local first = load_head()
if first then return first end
local class, name = ARGV[5], ARGV[8]
local size, window, remembered_max = struct.unpack('>ddd', ARGV[4])
local clock
if name ~= '' then
    -- Those that there have been.
    for back = 0, math.min(2, gen) do
        local found = redis.call('HGET', KEYS[5 + (gen - back) % 3], name)
        if found then
            -- A write behind which replicas can be waited for, as behind the first time.
            if string.find(ARGV[11], 'w', 1, true) then save_head() end
            local there = ''
            if ARGV[1] == '' and found ~= '0' then
                there = redis.call('LINDEX', KEYS[2], tonumber(found) - o - 1) or ''
            end
            return { e, found, 1, there }
        end
    end
    clock = server_time()
    -- What a durable room has may be older than what is remembered here.
    if ARGV[1] == '' and class == 'r' and (clock - begun < window or clock < begun)
        and not string.find(ARGV[11], 'a', 1, true) then
        return redis.status_reply('ASK')
    end
end

if n >= OFFSET_MAX then return redis.error_reply('ROOMFULL the room has numbered its last publish') end
local offset = '0'
if class == 'r' then
    if o >= OFFSET_MAX then return redis.error_reply('ROOMFULL the log has given out its last offset') end
    o = o + 1
    offset = whole(o)
end
n = n + 1
local entry = e .. ' ' .. whole(n) .. ' ' .. offset .. ' ' .. ARGV[7]

if class == 'r' then
    if messages_max == 0 or size > bytes_max then
        -- What lies before it can't be read over it.
        redis.call('UNLINK', KEYS[2])
        b = -1
        keep_first(true, 0)
    else
        local count = redis.call('RPUSH', KEYS[2], entry)
        -- A log that was lost alone begins again.
        b = (count == 1) and size or math.max(b, 0) + size
        if count == 1 then redis.call('PEXPIRE', KEYS[2], kept * 2) end
        local left = trim(count, 64, (o % 16 == 0) and 32 or 0)
        keep_first(left ~= count, left)
    end
elseif class == 'l' then
    local bytes = (tonumber(redis.call('HGET', KEYS[1], 'lb')) or 0) - redis.call('HSTRLEN', KEYS[3], ARGV[6]) + #entry
    redis.call('HSET', KEYS[3], ARGV[6], entry)
    redis.call('ZADD', KEYS[4], whole(n), ARGV[6])
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
    for key = 3, 4 do redis.call('PEXPIRE', KEYS[key], kept * 2) end
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

save_head()
redis.call(SAY, ARGV[9], entry)
if ARGV[10] ~= '' then redis.call('PUBLISH', ARGV[10], entry) end
return { e, offset, 0, '' }
