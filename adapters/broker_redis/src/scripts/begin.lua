-- Writes the life of a durable room that has begun in the archive, unless another one has begun here already. Answers 1
-- if it did.
--
-- ARGV   4 packed: the offset that it begins behind, and the oldest offset that the room has  5 its epoch
--        6 the epoch that the node found here, or nothing  7 the epoch that this one followed, or nothing
--        8 the earlier lives  9 which life of the server this was meant for

if ARGV[9] ~= ARGV[2] then return 0 end
local z = redis.call('HGET', KEYS[1], 'z')
local is_there = z and #z >= HEAD_MIN
if is_there then
    e, d, o, n, b, gen, gen_at, kept_at, begun, f, life = struct.unpack(HEAD, z)
    local refused = outlived(life)
    if refused then return refused end
    local is_fit = life == ARGV[2] and d == 1
    if is_fit and e ~= ARGV[6] and e ~= ARGV[7] then return 0 end
end
-- What was given out and never stored is forgotten with its msg_ids. The newest values by key have no other place.
redis.call('UNLINK', KEYS[2], KEYS[5], KEYS[6], KEYS[7])
if not is_there then
    redis.call('UNLINK', KEYS[1], KEYS[3], KEYS[4])
    n = 0
end
e, d, b, gen, gen_at, kept_at, begun, life = ARGV[5], 1, 0, 0, 0, 0, server_time(), ARGV[2]
o, f = struct.unpack('>dd', ARGV[4])
save_head()
redis.call('HSET', KEYS[1], 'p', ARGV[8])
redis.call('PEXPIRE', KEYS[1], kept * 2)
return 1
