-- Positions publishes that nothing is kept of, neither in the log nor under a msg_id, and hands them to all nodes. Answers
-- {epoch, offset} for each; nothing for one whose head is to be changed in more than that, and of which nothing is done:
-- then `publish` is to be called.
--
-- KEYS   the head of each one's room, the same one more than once if need be
-- ARGV   1 the server and its life, as the node knows it; then for each
--        1 packed: between which of the node's ms the time of expiry was set  2 its entry behind the offset
--        3 the room's channel  4 its namespace's, or nothing

local function place(key, span, tail, channel, of_namespace)
    local z = redis.call('HGET', key, 'z')
    if not z or #z < HEAD_MIN then return false end
    local e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = struct.unpack(HEAD, z)
    if life ~= ARGV[1] or b >= 0 then return false end
    local since, till = struct.unpack('>dd', span)
    if kept_at < since or kept_at > till or o >= OFFSET_MAX or n >= OFFSET_MAX then return false end
    o, n = o + 1, n + 1
    redis.call('HSET', key, 'z', struct.pack(HEAD, e, d, o, n, b, gen, gen_at, kept_at, begun, f, #life, life))
    local offset = string.format('%.0f', o)
    local entry = e .. ' ' .. string.format('%.0f', n) .. ' ' .. offset .. ' ' .. tail
    redis.call(SAY, channel, entry)
    if of_namespace ~= '' then redis.call('PUBLISH', of_namespace, entry) end
    return { e, offset }
end

local answers = {}
for i, key in ipairs(KEYS) do
    answers[i] = place(key, ARGV[4 * i - 2], ARGV[4 * i - 1], ARGV[4 * i], ARGV[4 * i + 1])
end
return answers
