-- What all scripts of rooms but `publish_plain` and `begin` begin with: the room's head, as it is now.
--
-- KEYS   1 head  2 log  3 latest  4 keys of latest by age  5, 6, 7 what was published lately, by msg_id
-- ARGV   1 an epoch that nobody has used; nothing for a durable room  2 the server and its life, as the node knows it
--        3 packed: the node's clock in ms; the most messages, bytes and ms kept; ms that an unused room is kept
--
-- The log is a list. Its last entry is the message at offset `o`, so that an entry's place says its offset.
-- Every entry begins with `epoch number offset bytes at\n`; bytes are those of its data.
--
-- The lives of a durable room begin in the archive, and `begin` writes them here. For such a room whose next life is to
-- begin first, a script answers that, and nothing was done.
--
-- No function here takes a local of the script's along: each would cost more than what most publishes do with it.

local now, messages_max, bytes_max, age_max, kept = struct.unpack('>ddddd', ARGV[3])
local e, d, o, n, b, gen, gen_at, kept_at, begun, f, life
-- The ends of earlier lives, where they were looked at.
local earlier

local z = redis.call('HGET', KEYS[1], 'z')
if z then
    if #z < HEAD_MIN then return redis.error_reply('ERR a head of another version') end
    e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = struct.unpack(HEAD, z)
end
local is_same = life == ARGV[2]
if not is_same and z then
    local refused = outlived(ARGV[2], life)
    if refused then return refused end
end
if ARGV[1] == '' and not (is_same and d == 1) then
    -- The offsets of a room that was none go on; those of one that was are known to the archive.
    local behind = (z and d ~= 1) and whole(o) or '0'
    return redis.status_reply('SUCCEED ' .. behind .. ' ' .. (e or ''))
end
-- The time of expiry is set anew only now and then: a room in use is never near it. Who brings no time only puts it off.
local is_due = not z or now - kept_at > kept / 4 or now < kept_at
if is_due or not is_same then
    if not z then
        -- Never used, forgotten or lost: what may be left of it belongs to nobody.
        redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7])
        e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = ARGV[1], 0, 0, 0, -1, 0, 0, 0, 0, -1, ARGV[2]
        earlier = ''
    elseif not is_same then
        -- Another server, or the same one after a restart: it may have lost the newest. Offsets go on, under another
        -- epoch, and the end of the old one is kept: who has read up to it has missed nothing.
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
    if is_due and now > 0 then kept_at = now end
    redis.call('HSET', KEYS[1], 'z', struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
    if is_due then
        for key = 1, 4 do redis.call('PEXPIRE', KEYS[key], kept * 2) end
    end
end
