"""Whether the counters of a gateway's slots say what is there: each is counted anew from the tasks that the links have."""

from collections import Counter
from collections.abc import Collection

from app.link import Link
from app.places import AHEAD, PROCESS, SHARED, Places


def check_counters(places: Places, links: Collection[Link]) -> None:
    """Fail where one has drifted."""
    placed: Counter[str] = Counter()
    sent: Counter[str] = Counter()
    for link in links:
        kinds: Counter[str] = Counter(task.slot for task in link.tasks.values())
        running = [task for task in link.tasks.values() if task.sent and task.slot == SHARED]
        placed.update(task.function for task in link.tasks.values() if task.slot)
        sent.update(task.function for task in running)
        assert all(task.link is link and task.label == label for label, task in link.tasks.items())
        assert (link.used, link.ahead) == (kinds[SHARED] + kinds[AHEAD], kinds[AHEAD]), link.name
        assert (link.running, link.used_processes) == (len(running), kinds[PROCESS]), link.name
        assert link.running <= link.slots, link.name
    elsewhere = Counter(task.function for link in links if not link.counted for task in link.tasks.values() if task.slot)
    for name, quota in places._quotas.items():
        assert (quota.placed, quota.sent, quota.elsewhere) == (placed[name], sent[name], elsewhere[name]), name
