-- Remembers a revocation and tells all nodes.
--
-- KEYS   1 what was taken back  2 when each may be forgotten
-- ARGV   1 what, as a key  2 of a user: the last moment that counts, in ms; else nothing  3 when it may be forgotten
--        4 now  5 the most that are remembered  6 the channel of all nodes

for _, over in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[4], 'LIMIT', 0, 64)) do
    redis.call('HDEL', KEYS[1], over)
    redis.call('ZREM', KEYS[2], over)
end
local known = redis.call('HGET', KEYS[1], ARGV[1])
if not known and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[5]) then
    return redis.error_reply('REVOKEDFULL as many are remembered as may be')
end
-- Of two of one user the later moment counts, as it includes the other; and each is kept for as long as either.
local moment, forget = ARGV[2], ARGV[3]
if known then
    local known_forget, known_moment = string.match(known, '^(%-?%d+) (%-?%d*)$')
    if known_forget and tonumber(known_forget) > tonumber(forget) then forget = known_forget end
    if known_moment and known_moment ~= '' and moment ~= '' and tonumber(known_moment) > tonumber(moment) then
        moment = known_moment
    end
end
redis.call('HSET', KEYS[1], ARGV[1], forget .. ' ' .. moment)
redis.call('ZADD', KEYS[2], forget, ARGV[1])
-- Both are gone once all of it may be forgotten.
local last = redis.call('ZRANGE', KEYS[2], -1, -1, 'WITHSCORES')[2]
for key = 1, 2 do redis.call('PEXPIREAT', KEYS[key], string.format('%.0f', tonumber(last) + 86400000)) end
redis.call(SAY, ARGV[6], 'revoke ' .. forget .. ' ' .. moment .. ' ' .. ARGV[1])
return 1
