"""The form of scripts that write to a primary with replicas.

A script first compares the epoch and, for a leader, the lease. Neither a connection to a server that lost and regained
its role, nor a leader whose lease has ended, may write. A counter of versions is raised when it is first incremented in
an epoch: the new primary may lack the last writes of the previous one, whose versions clients may have read.
"""

from collections.abc import Sequence

from knoll.redis import keys
from knoll.redis.fence import Fence
from knoll.redis.single_client import Script

VERSION_GAP = 1_000_000
"""A counter is raised by this number, or to the clock's milliseconds if that is higher: above every version that a lost
primary can have assigned alone."""

# Additional KEYS, from the last one: epoch; lease if there is a fence; epoch of the counter if there is one.
# Additional ARGV, from the last one: whether there is a fence, replication id, value of the lease if there is a fence.
_HEAD = """
local is_fenced, epoch = table.remove(ARGV), table.remove(ARGV)
if string.sub(redis.call('GET', table.remove(KEYS)) or '', 1, #epoch) ~= epoch then
  return redis.error_reply('STALEEPOCH another server became the primary')
end
if is_fenced == '1' and redis.call('GET', table.remove(KEYS)) ~= table.remove(ARGV) then
  return redis.error_reply('STALELEASE another process leads')
end
"""
_COUNTER = """
local counter_epoch = table.remove(KEYS)
local function incremented(key)
  if redis.call('GET', counter_epoch) ~= epoch then
    local at = redis.call('GET', key)
    if at then
      local time = redis.call('TIME')
      local milliseconds = time[1] * 1000 + math.floor(time[2] / 1000)
      redis.call('SET', key, string.format('%.0f', math.max(at + GAP, milliseconds)))
    end
    redis.call('SET', counter_epoch, epoch)
  end
  return redis.call('INCR', key)
end
""".replace("GAP", str(VERSION_GAP))

# KEYS: epoch. ARGV: replication id of this primary. Returns the epoch as it is stored.
BEGIN_EPOCH = Script("""
local stored = redis.call('GET', KEYS[1])
if stored and string.sub(stored, 1, #ARGV[1]) == ARGV[1] then return stored end
local began = 0
if stored then
  local time = redis.call('TIME')
  began = time[1] * 1000 + math.floor(time[2] / 1000)
end
local fresh = ARGV[1] .. ' ' .. string.format('%.0f', began)
redis.call('SET', KEYS[1], fresh)
return fresh
""")
# KEYS: counter. Returns its value.
RAISE = Script("return redis.call('INCR', KEYS[1])", writes=True, counter=1)


def epoch_form(script: Script) -> Script:
    """Return the form of a script that expects the additional keys and arguments of `additions`."""
    if not script.counter:
        return Script(_HEAD + script.text)
    increment = f"redis.call('INCR', KEYS[{script.counter}])"
    assert increment in script.text, "a script with a counter increments it"
    return Script(_HEAD + _COUNTER + script.text.replace(increment, f"incremented(KEYS[{script.counter}])"))


def additions(
    script: Script, keys_given: Sequence[str], epoch: str, fence: Fence | None
) -> tuple[list[str], list[str]]:
    """Return the additional KEYS and ARGV of a script's epoch form."""
    more_keys = [keys.version_epoch(keys_given[script.counter - 1])] if script.counter else []
    if fence is None:
        return [*more_keys, keys.EPOCH], [epoch, "0"]
    return [*more_keys, fence.key, keys.EPOCH], [fence.value, epoch, "1"]
