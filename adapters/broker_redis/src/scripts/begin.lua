-- Writes the life of a durable room that has begun in the archive, unless another one has begun here already. Answers 1
-- if it did.
--
-- KEYS   as those of `room`
-- ARGV   1, 2 as those of `room`  3 packed: four numbers that are passed over; ms that an unused room is kept
--        4 packed: the offset that it begins behind, and the oldest offset that the room has  5 its epoch
--        6 the epoch that the node found here, or nothing  7 the epoch that this one followed, or nothing
--        8 the earlier lives  9 which life of the server this was meant for

if ARGV[9] ~= ARGV[2] then return 0 end
local kept = struct.unpack('>d', ARGV[3], 33)
local n = 0
local z = redis.call('HGET', KEYS[1], 'z')
if z and #z >= HEAD_MIN then
    local epoch, is_durable, _, number, _, _, _, _, _, _, life = struct.unpack(HEAD, z)
    local refused = outlived(ARGV[2], life)
    if refused then return refused end
    local is_fit = life == ARGV[2] and is_durable == 1
    if is_fit and epoch ~= ARGV[6] and epoch ~= ARGV[7] then return 0 end
    n = number
else
    redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
end
-- What was given out and never stored is forgotten with its msg_ids. The newest values by key have no other place.
redis.call('UNLINK', KEYS[2], KEYS[5], KEYS[6], KEYS[7])
local behind, first = struct.unpack('>dd', ARGV[4])
redis.call('HSET', KEYS[1], 'p', ARGV[8], 'z',
    struct.pack(HEAD, ARGV[5], 1, behind, n, 0, 0, 0, 0, server_time(), first, #ARGV[2], ARGV[2]))
redis.call('PEXPIRE', KEYS[1], kept * 2)
return 1
