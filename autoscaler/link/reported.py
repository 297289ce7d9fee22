"""An instance of a node in another process, according to the newest message about it."""

from autoscaler.instances.transitions import LifecycleState
from knoll.messages.endpoints import Endpoint
from knoll.messages.instances import InstanceRow
from knoll.messages.members import Member
from knoll.messages.scale import StartFailure


class ReportedInstance:
    """See `InstanceReport`."""

    def __init__(self, name: str, member: Member) -> None:
        """
        Args:
            member: entry of an instance that is not armed; replaced with each message.
        """
        self.name, self.member = name, member

    @property
    def revision(self) -> str:
        return self.member.revision

    @property
    def uid(self) -> str:
        return self.member.uid

    @property
    def node(self) -> str:
        return self.member.node

    @property
    def generation(self) -> int:
        return self.member.generation

    @property
    def state(self) -> LifecycleState:
        return LifecycleState[self.member.state]

    @property
    def created(self) -> float:
        return self.row().created

    @property
    def failure(self) -> StartFailure | None:
        return self.member.failure

    @property
    def idle_since(self) -> float:
        return self.row().since

    @property
    def kept_bytes(self) -> int:
        return self.row().memory_bytes

    @property
    def was_in_service(self) -> bool:
        return self.member.served

    @property
    def was_armed(self) -> bool:
        return self.member.was_armed

    def endpoint(self) -> Endpoint | None:
        return self.member.endpoint

    def row(self) -> InstanceRow:
        return self.member.row or InstanceRow(self.name, "", 0, "draining", 0.0, (), node=self.node)
