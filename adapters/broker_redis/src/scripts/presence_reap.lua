-- Takes out of a room who was here over a node that is gone. Answers how many are left for the next call.
--
-- ARGV   1 the most members  2 the room's channel  3 the room

for _, member in ipairs(redis.call('HRANDFIELD', KEYS[5], ARGV[1])) do
    set(member, 0, ARGV[2], ARGV[3])
end
return redis.call('HLEN', KEYS[5])
