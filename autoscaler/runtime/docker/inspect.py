"""Inspecting a container: its log, its exit, its usage, and commands in it."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from autoscaler.runtime.docker.engine import Engine, EngineError, EngineQuery
from autoscaler.runtime.docker.stream_demux import Demux
from autoscaler.runtime.model import ContainerState, ExecResult, LogChunk, Usage

OUTPUT_BYTES = 64 * 1024
CANNOT_RUN, NOT_FOUND = 126, 127


async def read_log(engine: Engine, container_id: str, query: EngineQuery) -> AsyncIterator[LogChunk]:
    """Yield a container's output; `query` is that of Docker's API, without the choice of streams."""
    demux = Demux()
    path = f"/containers/{container_id}/logs"
    async with engine.stream("GET", path, query={"stdout": 1, "stderr": 1, **query}) as response:
        async for data in engine.chunks(response):
            for chunk in demux.feed(data):
                yield chunk


async def run(engine: Engine, container_id: str, command: Sequence[str]) -> ExecResult:
    """Run a command in a running container; raises EngineError when it does not run."""
    body = {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True}
    exec_id = (await engine.post(f"/containers/{container_id}/exec", body))["Id"]
    output, demux = b"", Demux()
    try:
        async with engine.stream("POST", f"/exec/{exec_id}/start", body={"Detach": False, "Tty": False}) as response:
            async for data in engine.chunks(response):
                for chunk in demux.feed(data):
                    output += chunk.data[: OUTPUT_BYTES - len(output)]
    except EngineError as error:
        if error.status in (404, 409):
            raise
        return ExecResult(NOT_FOUND if "not found" in str(error) else CANNOT_RUN, str(error).encode())
    code = (await engine.get(f"/exec/{exec_id}/json"))["ExitCode"]
    return ExecResult(CANNOT_RUN if code is None else int(code), output)


async def with_reason(engine: Engine, container_id: str, state: ContainerState) -> ContainerState:
    """Add the details of a container that ended, which the engine's list does not have."""
    try:
        inspected = (await engine.get(f"/containers/{container_id}/json"))["State"]
    except EngineError:
        return state
    code, message = int(inspected["ExitCode"]), str(inspected.get("Error") or "")
    return replace(state, exit_code=code, oom_killed=bool(inspected["OOMKilled"]), message=message)


async def usage(engine: Engine, container_id: str) -> Usage:
    """Return what a container uses; zero when it is gone."""
    try:
        stats = await engine.get(f"/containers/{container_id}/stats", {"stream": "false", "one-shot": "true"}) or {}
    except EngineError:
        return Usage(0.0, 0)
    nanoseconds = ((stats.get("cpu_stats") or {}).get("cpu_usage") or {}).get("total_usage") or 0
    return Usage(int(nanoseconds) / 1e9, _working_set(stats.get("memory_stats") or {}))


async def written_bytes(engine: Engine, container_id: str) -> int:
    """Return how many bytes a container has written into its own file system; 0 when it is gone."""
    try:
        inspected = await engine.get(f"/containers/{container_id}/json", {"size": 1})
    except EngineError:
        return 0
    return int(inspected.get("SizeRw") or 0)


def _working_set(stats: Mapping[str, Any]) -> int:
    """Return the usage without reclaimable file cache: `total_inactive_file` in cgroup v1, `inactive_file` in v2."""
    detail = stats.get("stats") or {}
    cache = detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return max(0, int(stats.get("usage", 0)) - int(cache))
