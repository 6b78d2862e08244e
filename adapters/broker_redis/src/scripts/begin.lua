-- Writes the life of a durable room that has begun in the archive, unless another one has begun here already. Answers 1
-- if it did.
--
-- ARGV   8 its epoch  9 the epoch that the node found here, or nothing  10 the epoch that this one followed, or nothing
--        11 the offset that it begins behind  12 the earlier lives  13 the oldest offset that the room has
--        14 which life of the server this was meant for

local h = redis.call('HMGET', KEYS[1], 'e', 'l', 'd', 'n')
if ARGV[14] ~= ARGV[2] then return 0 end
local refused = outlived(h[2])
if refused then return refused end
local is_fit = h[1] and h[2] == ARGV[2] and h[3] == '1'
if is_fit and h[1] ~= ARGV[9] and h[1] ~= ARGV[10] then return 0 end
-- What was given out and never stored is forgotten with its msg_ids. The newest values by key have no other place.
redis.call('UNLINK', KEYS[2], KEYS[5], KEYS[6], KEYS[7])
if not h[1] then redis.call('UNLINK', KEYS[3], KEYS[4]) end
redis.call('HSET', KEYS[1], 'e', ARGV[8], 'o', ARGV[11], 'n', h[4] or '0', 'b', '0', 'l', ARGV[2], 'g', '0', 'ga', '0',
    'k', '0', 'p', ARGV[12], 'd', '1', 'f', ARGV[13], 's', whole(server_time()))
redis.call('PEXPIRE', KEYS[1], tonumber(ARGV[7]) * 2)
return 1
