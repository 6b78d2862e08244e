-- Says over how many connections of a node a member is in a room. Says it again and nothing changes.
--
-- ARGV   1 the member  2 the connections  3 the room's channel  4 the room  5 ms that it is kept

set(ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4])
for key = 1, 5 do redis.call('PEXPIRE', KEYS[key], ARGV[5]) end
return 1
