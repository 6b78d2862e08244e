-- Does each command that scripts need once, and answers the name of the first one that this server does not have, or
-- that this user may not give; else nothing.
--
-- KEYS   1, 2, 3, 4 what nobody else uses
-- ARGV   1 a channel that nobody hears

local h, l, z, s = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local all = {
    { 'TIME' }, { 'DEL', h, l, z, s },
    { 'HSET', h, 'a', '1' }, { 'HGET', h, 'a' }, { 'HGETALL', h }, { 'HMGET', h, 'a', 'b' }, { 'HINCRBY', h, 'a', '1' },
    { 'HEXISTS', h, 'a' }, { 'HLEN', h }, { 'HRANDFIELD', h, '1' }, { 'PEXPIRE', h, '1000' }, { 'PTTL', h },
    { 'PEXPIREAT', h, '99999999999999' }, { 'HSTRLEN', h, 'a' },
    { 'HDEL', h, 'a' },
    { 'RPUSH', l, 'a' }, { 'LLEN', l }, { 'LRANGE', l, '0', '0' }, { 'LINDEX', l, '0' }, { 'LSET', l, '0', 'b' },
    { 'LPOP', l },
    { 'ZADD', z, '1', 'a' }, { 'ZSCORE', z, 'a' }, { 'ZRANGE', z, '0', '-1' }, { 'ZCARD', z },
    { 'ZRANGEBYSCORE', z, '-inf', '1', 'LIMIT', '0', '1' }, { 'ZREM', z, 'a' }, { 'ZPOPMIN', z },
    { 'SADD', s, 'a' }, { 'SISMEMBER', s, 'a' }, { 'SREM', s, 'a' },
    { SAY, ARGV[1], '' },
    { 'DEL', h, l, z, s }, { 'UNLINK', h, l, z, s },
}
-- Whatever else is wrong, as too little memory, passes.
local for_good = { 'NOPERM', 'The user executing the script', 'nknown Redis command', 'nknown command' }
for _, one in ipairs(all) do
    local answer = redis.pcall(unpack(one))
    if type(answer) == 'table' and answer.err then
        for _, words in ipairs(for_good) do
            if string.find(answer.err, words, 1, true) then return one[1] end
        end
    end
end
return ''
