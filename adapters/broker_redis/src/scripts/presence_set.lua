-- Says over how many connections of a node a member is in a room. Says it again and nothing changes.
--
-- ARGV   1 the member  2 the connections  3 the room's channel  4 the room  5 ms that it is kept
--        6 its data, where this server may have lost it

set(ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4])
if ARGV[6] ~= '' and redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1 and redis.call('HEXISTS', KEYS[4], ARGV[1]) == 0 then
    redis.call('HSET', KEYS[4], ARGV[1], ARGV[6])
    tell(ARGV[3], ARGV[4], 'update', ARGV[1], ARGV[6])
end
for key = 1, 5 do redis.call('PEXPIRE', KEYS[key], ARGV[5]) end
return 1
