-- Positions a publish, keeps it and hands it to all nodes, in one step. Answers {epoch, offset or 0, 1 if it was
-- published before, the entry of that one if the room is durable and has it}; or that something is to be done first.
--
-- ARGV   8 class: r, l or d  9 what it replaces, for l  10 the body  11 bytes of its data
--        12 whose msg_id it is and the msg_id, or nothing  13 ms that it is remembered  14 the most remembered
--        in half that time  15 the room's channel  16 its namespace's, or nothing  17 the last offset
--        18, 19 the most keys of `latest` and the most bytes of their entries  20 1 where replicas are waited for
--        21 the fence of its user's connection, or 0; then KEYS 8 is the user's  22 1 where the archive of a durable
--        room was asked for the msg_id

if ARGV[21] ~= '0' then
    local fence = redis.call('HGET', KEYS[8], 'f')
    -- A Redis that has lost it may have been told of an older connection first.
    if not fence or tonumber(fence) < tonumber(ARGV[21]) then
        return redis.error_reply('UNFENCED nobody has said who speaks for the user')
    end
    if fence ~= ARGV[21] then return redis.error_reply('FENCED a newer connection speaks for the user') end
end
local first = load_head()
if first then return first end
local name, window = ARGV[12], tonumber(ARGV[13])
local clock
if name ~= '' then
    for back = 0, 2 do
        local found = redis.call('HGET', KEYS[5 + (gen - back) % 3], name)
        if found then
            -- A write behind which replicas can be waited for, as behind the first time.
            if ARGV[20] == '1' then redis.call('HSET', KEYS[1], 'e', e) end
            local there = ''
            if ARGV[1] == '' and found ~= '0' then
                there = redis.call('LINDEX', KEYS[2], tonumber(found) - o - 1) or ''
            end
            return { e, found, 1, there }
        end
    end
    clock = server_time()
    -- What a durable room has may be older than what is remembered here.
    if ARGV[1] == '' and ARGV[8] == 'r' and ARGV[22] ~= '1' and (clock - begun < window or clock < begun) then
        return redis.status_reply('ASK')
    end
end

local class, size = ARGV[8], tonumber(ARGV[11])
local offset = '0'
-- Beyond it a number of Lua stands for several.
if n >= tonumber(ARGV[17]) then return redis.error_reply('ROOMFULL the room has numbered its last publish') end
n = n + 1
if class == 'r' then
    if o >= tonumber(ARGV[17]) then return redis.error_reply('ROOMFULL the log has given out its last offset') end
    o = o + 1
    offset = whole(o)
end
local entry = e .. ' ' .. whole(n) .. ' ' .. offset .. ' ' .. ARGV[11] .. ' ' .. ARGV[3] .. '\n' .. ARGV[10]

if class == 'r' then
    if messages_max == 0 or size > bytes_max then
        -- What lies before it can't be read over it.
        redis.call('UNLINK', KEYS[2])
        b = nil
        keep_first(true, 0)
    else
        local count = redis.call('RPUSH', KEYS[2], entry)
        -- A log that was lost alone begins again.
        b = (count == 1) and size or b + size
        if count == 1 then redis.call('PEXPIRE', KEYS[2], tonumber(ARGV[7]) * 2) end
        local left = trim(count, 64, (o % 16 == 0) and 32 or 0)
        keep_first(left ~= count, left)
    end
    redis.call('HSET', KEYS[1], 'o', offset, 'n', whole(n), 'b', b and whole(b) or '-')
else
    redis.call('HSET', KEYS[1], 'n', whole(n))
    if class == 'l' then
        local kept = (tonumber(redis.call('HGET', KEYS[1], 'lb')) or 0)
            - redis.call('HSTRLEN', KEYS[3], ARGV[9]) + #entry
        redis.call('HSET', KEYS[3], ARGV[9], entry)
        redis.call('ZADD', KEYS[4], whole(n), ARGV[9])
        local keys = redis.call('ZCARD', KEYS[4])
        while keys > 1 and (keys > tonumber(ARGV[18]) or kept > tonumber(ARGV[19])) do
            local oldest = redis.call('ZPOPMIN', KEYS[4])[1]
            kept = kept - redis.call('HSTRLEN', KEYS[3], oldest)
            redis.call('HDEL', KEYS[3], oldest)
            keys = keys - 1
        end
        -- Also where the others were lost alone.
        if keys == 1 then kept = #entry end
        redis.call('HSET', KEYS[1], 'lb', whole(kept))
        for key = 3, 4 do redis.call('PEXPIRE', KEYS[key], tonumber(ARGV[7]) * 2) end
    end
end

if name ~= '' then
    -- By this server's clock: those of the nodes differ.
    local fresh = gen_at == 0
    if fresh or clock - gen_at >= window / 2 or clock < gen_at
        or redis.call('HLEN', KEYS[5 + gen % 3]) >= tonumber(ARGV[14]) then
        if not fresh then gen = gen + 1 end
        gen_at, fresh = clock, true
        redis.call('UNLINK', KEYS[5 + gen % 3])
        redis.call('HSET', KEYS[1], 'g', whole(gen), 'ga', whole(gen_at))
    end
    redis.call('HSET', KEYS[5 + gen % 3], name, offset)
    if fresh then redis.call('PEXPIRE', KEYS[5 + gen % 3], window * 2) end
end

redis.call(SAY, ARGV[15], entry)
if ARGV[16] ~= '' then redis.call('PUBLISH', ARGV[16], entry) end
return { e, offset, 0, '' }
