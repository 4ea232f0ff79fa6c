"""Define the Lua scripts of the transport: each is one atomic step in Redis, by its clock alone (decision 0031).

`unacked`, `channel` and `claimed_message` run them. The models in tests/protocol_models check them against each
other.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from redis.exceptions import NoScriptError

if TYPE_CHECKING:
    from collections.abc import Sequence

# A full server refuses writes that may need memory, unless the script has written before: then it may end. Removing an
# entry that does not exist counts as a write, needs no memory, and finds a key of a wrong type before any change.


class Script:
    """A Lua script of Redis.

    Args:
        text: Lua; KEYS and ARGV as its caller gives them.
    """

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - what Redis calls it by

    def command(self, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
        """Return the command that runs it by its hash, if the server knows it."""
        return ("EVALSHA", self.sha, len(keys), *keys, *arguments)

    def whole(self, keys: Sequence[str], *arguments: Any) -> tuple[Any, ...]:
        """Return the command that runs it by its text, after which the server knows it."""
        return ("EVAL", self.text, len(keys), *keys, *arguments)

    def run(self, connection: Any, keys: Sequence[str], *arguments: Any) -> Any:
        """Run it now.

        Args:
            connection: redis-py's; no client, which would put a prefix before some of the keys.
            keys: as they stand in Redis.
            arguments: the script's.

        Returns:
            Its result.
        """
        connection.send_command(*self.command(keys, *arguments))
        try:
            return connection.read_response()
        except NoScriptError:
            connection.send_command(*self.whole(keys, *arguments))
            return connection.read_response()


# KEYS: unacked, its index, the owners, then lists to claim from.
# ARGV: how many; the owner; the prefix of its tags; the number before its first; for each list its queue, as JSON.
# Returns (the position of a list, its items from the end that is claimed from, the oldest first) for each list with
# any, and as the last (0, the positions of keys that are not lists).
# Its entries in unacked have kombu's format: the item as it was, its exchange (none) and routing key (the queue).
CLAIM = Script("""
redis.call('HDEL', KEYS[1], '')
redis.call('ZREM', KEYS[2], '')
redis.call('ZREM', KEYS[3], '')
local left, number = tonumber(ARGV[1]), tonumber(ARGV[4])
local found, wrong, now = {}, {0}, nil
for place = 4, #KEYS do
  if left <= 0 then break end
  local items = redis.pcall('LRANGE', KEYS[place], -left, -1)
  if items.err then
    wrong[#wrong + 1] = place - 3
  elseif #items > 0 then
    if not now then
      local time = redis.call('TIME')
      now = time[1] .. '.' .. string.format('%06d', time[2])
      redis.call('ZADD', KEYS[3], now, ARGV[2])
    end
    local claims, scores, taken = {}, {}, {place - 3}
    for i = #items, 1, -1 do
      number = number + 1
      local tag = ARGV[3] .. number
      claims[#claims + 1] = tag
      claims[#claims + 1] = '[' .. items[i] .. ', "", ' .. ARGV[place + 1] .. ']'
      scores[#scores + 1] = now
      scores[#scores + 1] = tag
      taken[#taken + 1] = items[i]
    end
    redis.call('HSET', KEYS[1], unpack(claims))
    redis.call('ZADD', KEYS[2], unpack(scores))
    redis.call('LTRIM', KEYS[place], 0, -(#items + 1))
    found[#found + 1] = taken
    left = left - #items
  end
end
found[#found + 1] = wrong
return found
""")

# KEYS: unacked, its index, the owners, then a list for each claim.
# ARGV: the end of the lists, LPUSH or RPUSH; an owner that must be dead, or ''; seconds after which one is; then for
# each claim its tag, the item, and the SHA-1 of the claim as it was read, or '' if it cannot have been divided since.
# Returns how many claims it ended, and the tags of those that have changed since they were read; a claim that another
# worker has ended is in neither.
RESTORE = Script("""
redis.call('HDEL', KEYS[1], '')
if ARGV[2] ~= '' then
  local beat = redis.call('ZSCORE', KEYS[3], ARGV[2])
  if beat and tonumber(beat) > redis.call('TIME')[1] - ARGV[3] then return {0} end
end
for place = 4, #KEYS do redis.call('LLEN', KEYS[place]) end
local found = {0}
for place = 4, #KEYS do
  local tag, item, sha = ARGV[3 * place - 8], ARGV[3 * place - 7], ARGV[3 * place - 6]
  local claim = redis.call('HGET', KEYS[1], tag)
  if not claim then
    redis.call('ZREM', KEYS[2], tag)
  elseif sha == '' or redis.sha1hex(claim) == sha then
    redis.call('ZREM', KEYS[2], tag)
    redis.call('HDEL', KEYS[1], tag)
    redis.call(ARGV[1], KEYS[place], item)
    found[1] = found[1] + 1
  else
    found[#found + 1] = tag
  end
end
return found
""")

# KEYS: unacked, its index, the quarantine list, the count of all items that were ever in it.
# ARGV: the claim's tag, the entry to keep, how many entries to keep.
# Returns that count, or 0 if another worker has ended the claim.
QUARANTINE = Script("""
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
if redis.call('TYPE', KEYS[3]).ok ~= 'list' then redis.call('DEL', KEYS[3]) end
redis.call('LPUSH', KEYS[3], ARGV[2])
redis.call('LTRIM', KEYS[3], 0, ARGV[3] - 1)
local count = redis.pcall('INCR', KEYS[4])
if type(count) == 'table' then
  redis.call('SET', KEYS[4], 1)
  return 1
end
return count
""")

# KEYS: the owners, unacked's index. ARGV: the owner, or '' for none that holds anything; seconds after which one is
# dead; then tags of claims that are in flight: their scores become now, so that no visibility timeout finds them.
# Returns owners that are dead.
HEARTBEAT = Script("""
redis.call('ZREM', KEYS[1], '')
local now = redis.call('TIME')[1]
if ARGV[1] ~= '' then redis.call('ZADD', KEYS[1], now, ARGV[1]) end
for i = 3, #ARGV do redis.call('ZADD', KEYS[2], 'XX', now, ARGV[i]) end
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2], 'LIMIT', 0, 10)
""")

# KEYS: the owners. ARGV: one without claims, seconds after which one is dead.
FORGET = Script("""
local beat = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not beat or tonumber(beat) > redis.call('TIME')[1] - ARGV[2] then return 0 end
return redis.call('ZREM', KEYS[1], ARGV[1])
""")

# KEYS: a key, its new name if it is of another type, for so many milliseconds. ARGV: the type it must have; those.
QUARANTINE_KEY = Script("""
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'none' or kind == ARGV[1] then return 0 end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
""")
