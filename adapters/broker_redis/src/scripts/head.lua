-- What scripts of rooms begin with: how a room's head is written.
--
-- The head is a hash. Its field `z` has all that a publish needs or changes, packed, since what a server spends on a
-- script goes by its calls, strings and numbers as text:
--
--   e  the epoch, 16 characters        d  1 for a durable room
--   o  the last offset                 n  the number of the last publish, with or without an offset
--   b  bytes of data in the log, or -1 where there surely is no log: then `publish_plain` may go on from the head alone
--   g  the generation that msg_ids are written into, and ga, since when by the server's clock, 0 for none yet
--   k  when the time of expiry was set, by a node's clock
--   s  when a durable room's life began, by the server's clock
--   f  the oldest offset that a durable room has, here or in the archive; -1 elsewhere
--   l  the server and its life
--
-- `p` has the ends of earlier lives, newest first, as text; `lb` the bytes of all newest messages by key; `e` is written
-- and never read, where replicas are waited for and there is nothing else to write.

local HEAD = '>c16BddddddddBc0'
local HEAD_MIN = 82
-- Beyond it a number of Lua stands for several.
local OFFSET_MAX = 9007199254740991
