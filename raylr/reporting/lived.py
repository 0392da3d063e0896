"""The policy that a run lived through: the one it began with, or a donor's, and the overrides that its events hold.

A run's policy.json has none of them: they were set while it trained, by a user, the guard, a resize or an exploit.
"""

from raylr.events import Copied, Joined, Overridden, Resized, RolledBack, RunEvent, event_of_row
from raylr.lr import Policy
from raylr.planning.plan import Plan
from raylr.storage import Folder, run_folder


def policy_at_start(folder: Folder) -> Policy:
    """The policy that a run began with."""
    return Policy.from_json(folder.read_bytes("policy.json").decode())


def lived_policy(folder: Folder, position: int) -> tuple[Policy, list[Copied]]:
    """The policy, with overrides, of the update at `position`, and the exploits behind it, oldest first."""
    policy, events = _life(folder, position)
    level, healed_at = 0, 0
    for event in events:
        match event:
            case Overridden() | Copied():
                policy = policy.with_overrides(*event.entries())
            case RolledBack():
                level, healed_at, entries = _plan(folder).guard.cut_at(event.position, level, healed_at)
                policy = policy.with_overrides(*entries)
            case Resized():
                plan = _plan(folder)
                sizes = plan.batch_at(event.from_size, event.position), plan.batch_at(event.to_size, event.position)
                policy = policy.resized(event.position, *sizes, plan.rewarm)
    return policy, [event for event in events if isinstance(event, Copied)]


def _plan(folder: Folder) -> Plan:
    return Plan.model_validate(folder.read_json("plan.json"))


def _life(folder: Folder, position: int, as_donor: bool = False) -> tuple[Policy, list[RunEvent]]:
    """The first policy behind the state at `position`, and what happened to it since, on the way through donors.

    A donor gave the state that it had before it took over another's at the same position.
    """
    events = [event for event in _that_count(folder) if event.position <= position]
    if as_donor:
        events = [event for event in events if not (isinstance(event, Copied) and event.position == position)]
    copies = [index for index, event in enumerate(events) if isinstance(event, Copied)]
    if not copies:
        return policy_at_start(folder), events
    last = events[copies[-1]]
    assert isinstance(last, Copied)
    policy, before = _life(run_folder(folder.storage, last.donor), last.position, as_donor=True)
    return policy, [*before, *events[copies[-1] :]]


def _that_count(folder: Folder) -> list[RunEvent]:
    """The events of a run once each, without those that a restart from an earlier position undid."""
    kept: dict[tuple[str, int, object], RunEvent] = {}
    for row in folder.read_rows("events.jsonl"):
        event = event_of_row(row)
        if isinstance(event, Joined):
            kept = {key: one for key, one in kept.items() if one.position <= event.position}
        kept[event.kind, event.position, row.get("number")] = event
    return list(kept.values())
