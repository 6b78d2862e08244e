local function whole(x) return string.format('%.0f', x) end

local function server_time()
    local time = redis.call('TIME')
    return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Calls of a connection that was made in an earlier life than its room's are refused: rooms never go back to one. The
-- lives of a Cluster's servers have no numbers.
local function outlived(of_node, of_room)
    local here, there = string.match(of_node, '^@(%d+)%-'), string.match(of_room or '', '^@(%d+)%-')
    if not here or not there or tonumber(there) <= tonumber(here) then return nil end
    return redis.error_reply('OUTLIVED ' .. there)
end
