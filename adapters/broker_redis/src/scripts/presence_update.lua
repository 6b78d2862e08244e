-- Sets a member's data. Answers 0 if it is not here.
--
-- ARGV   1 the member  2 its data  3 the room's channel  4 the room

if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then return 0 end
if redis.call('HGET', KEYS[4], ARGV[1]) ~= ARGV[2] then
    redis.call('HSET', KEYS[4], ARGV[1], ARGV[2])
    redis.call('PEXPIRE', KEYS[4], redis.call('PTTL', KEYS[3]))
    tell(ARGV[3], ARGV[4], 'update', ARGV[1], ARGV[2])
end
return 1
