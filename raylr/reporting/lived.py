"""The policy that a run lived through: the one it began with, or a donor's, and the overrides that its events hold.

A run's policy.json has none of them, but for those of a fork's joint: they were set while it trained, by a user, the guard,
a resize or an exploit. Before its joint a fork lived through its parent's policy.
"""

from raylr.events import Copied, Joined, Overridden, Resized, RolledBack, RunEvent, event_of_row
from raylr.lr import Policy
from raylr.planning.legs import plan_at, policy_at
from raylr.planning.plan import Plan
from raylr.storage import Folder, run_folder


def lived_policy(folder: Folder, position: int) -> tuple[Policy, list[Copied]]:
    """The policy, with overrides, of the update at `position`, and the exploits behind it, oldest first."""
    policy, events = _life(folder, position)
    level, healed_at = 0, 0
    for event in events:
        match event:
            case Overridden() | Copied():
                policy = policy.with_overrides(*event.entries())
            case RolledBack():
                plan = plan_at(folder, event.position)
                if isinstance(plan, Plan):  # a loop of one's own has no guard
                    level, healed_at, entries = plan.guard.cut_at(event.position, level, healed_at)
                    policy = policy.with_overrides(*entries)
            case Resized():
                plan = plan_at(folder, event.position)
                sizes = plan.batch_at(event.from_size, event.position), plan.batch_at(event.to_size, event.position)
                policy = policy.resized(event.position, *sizes, plan.rewarm)
    return policy, [event for event in events if isinstance(event, Copied)]


def _life(folder: Folder, position: int, as_donor: bool = False) -> tuple[Policy, list[RunEvent]]:
    """The first policy behind the state at `position`, and what happened to it since, on the way through donors.

    A donor gave the state that it had before it took over another's at the same position.
    """
    events = [event for event in events_that_count(folder) if event.position <= position]
    if as_donor:
        events = [event for event in events if not (isinstance(event, Copied) and event.position == position)]
    copies = [index for index, event in enumerate(events) if isinstance(event, Copied)]
    if not copies:
        return policy_at(folder, position), events
    last = events[copies[-1]]
    assert isinstance(last, Copied)
    policy, before = _life(run_folder(folder.storage, last.donor), last.position, as_donor=True)
    return policy, [*before, *events[copies[-1] :]]


def events_that_count(folder: Folder) -> list[RunEvent]:
    """The events of a run once each, without those that a restart from an earlier position undid."""
    kept: dict[tuple[str, int, object], RunEvent] = {}
    for row in folder.read_rows("events.jsonl"):
        event = event_of_row(row)
        if isinstance(event, Joined):
            kept = {key: one for key, one in kept.items() if one.position <= event.position}
        kept[event.kind, event.position, row.get("number")] = event
    return list(kept.values())
